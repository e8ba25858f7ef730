"""The rules that bring packets into the queues, put in and taken out by the iptables programs.

Every rule carries the comment ``tcpha ROLE`` and is found again by it, so nothing has to be remembered to remove the
rules, and other programs' rules are never touched. New rules follow the rules that are there: what a host drops in the
raw table stays dropped. Knows nothing of addresses or processes. iptables-extensions(8).

With the nf_tables variant of iptables the first rule of a chain creates the table and the chain in the kernel, where
they then stay, empty, and show in iptables-save (which shows all built-in chains of a table, whether they exist or
not). `tidy` removes what was not there before. With the legacy variant a table cannot be removed once it is loaded: it
shows in iptables-save, empty, until the kernel module is unloaded, and does nothing.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tcpha.errors import EdgeError, StartError
from tcpha.net.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_NONREC,
    NLM_F_REQUEST,
    Message,
    NetlinkSocket,
    decode_attributes,
    encode_attribute,
)

FAMILIES = (4, 6)
_PROGRAM = {4: "iptables", 6: "ip6tables"}
_ADDRESS_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROGRAM_S = 30.0

# What a host's TCP takes note of (RFC 1122, 3.2.2; RFC 4443, 3): never echo or neighbour discovery.
_ICMP_ERRORS = {
    4: tuple(f"-p icmp --icmp-type {kind}" for kind in (3, 11, 12)),
    6: tuple(f"-p icmpv6 --icmpv6-type {kind}" for kind in (1, 2, 3, 4)),
}
_ICMP_TOO_BIG = {4: "-p icmp --icmp-type 3/4", 6: "-p icmpv6 --icmpv6-type 2"}

_NETLINK_NETFILTER = 12
_NFT = 10  # NFNL_SUBSYS_NFTABLES
_NFT_GETTABLE, _NFT_DELTABLE, _NFT_GETCHAIN, _NFT_DELCHAIN = (_NFT << 8 | kind for kind in (1, 2, 4, 5))
_NFTA_TABLE_NAME = 1
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_POLICY = 1, 3, 5
_ACCEPT = struct.pack("!I", 1)
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFGENMSG = struct.Struct("!BBH")  # family, version, subsystem of the batch


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as iptables-restore reads it, without its comment.

    family: 4 or 6. match and target: words of iptables(8); an empty target only counts.
    """

    family: int
    table: str
    chain: str
    match: str
    target: str


def front_end_rules(vaddrs: Iterable[IPv4Address | IPv6Address], vports: Sequence[int], queue: int) -> tuple[Rule, ...]:
    """Return the rules of a front end.

    In raw PREROUTING, before connection tracking: a rule that only counts TCP packets which carry a virtual address as
    source (a back end's answers that pass the front end although they should not), then what goes into the queue:
    TCP to the ports, and ICMP errors. The front end's own packets are not tracked.
    """
    rules: list[Rule] = []
    for vaddr in vaddrs:
        family = vaddr.version
        rules.append(Rule(family, "raw", "PREROUTING", f"-s {vaddr} -p tcp", ""))
        to_queue = f"-j NFQUEUE --queue-num {queue}"
        rules += [
            Rule(family, "raw", "PREROUTING", f"! -i lo -d {vaddr} -p tcp --dport {vport}", to_queue)
            for vport in vports
        ]
        rules += [
            Rule(family, "raw", "PREROUTING", f"! -i lo -d {vaddr} {error}", to_queue) for error in _ICMP_ERRORS[family]
        ]
        own = [f"-s {vaddr} -p tcp --sport {vport}" for vport in vports] + [f"-s {vaddr} {_ICMP_TOO_BIG[family]}"]
        rules += [Rule(family, "raw", "OUTPUT", match, "-j CT --notrack") for match in own]
    return tuple(rules)


def back_end_rules(
    vaddrs: Iterable[IPv4Address | IPv6Address],
    vports: Sequence[int],
    arriving: int,
    leaving: int,
    mark: int,
    kernel_mark: int | None = None,
) -> tuple[Rule, ...]:
    """Return the rules of a back end.

    Packets that arrive for a virtual address, and ICMP errors, go to the queue `arriving` before connection tracking
    sees them; packets that the server sends from it go to the queue `leaving` after connection tracking saw them.
    Packets that carry `mark` and the host's traffic with itself are left alone.

    Packets of connections that the kernel adopted carry `kernel_mark`: they are left alone and not tracked, for there
    was no handshake. Sockets then bear the mark of the packet they were made of, so what leaves with `mark` is of a
    connection that the process replayed, and has to go to its queue.
    """
    rules: list[Rule] = []
    arriving_unmarked = leaving_unmarked = f"-m mark ! --mark {mark:#x}"
    if kernel_mark is not None:
        leaving_unmarked = f"-m mark ! --mark {kernel_mark:#x}"
        arriving_unmarked += f" {leaving_unmarked}"
    for vaddr in vaddrs:
        family = vaddr.version
        matches = [f"-p tcp --dport {vport}" for vport in vports] + [*_ICMP_ERRORS[family]]
        rules += [
            Rule(
                family,
                "raw",
                "PREROUTING",
                f"! -i lo -d {vaddr} {match} {arriving_unmarked}",
                f"-j NFQUEUE --queue-num {arriving}",
            )
            for match in matches
        ]
        rules += [
            Rule(
                family,
                "mangle",
                "POSTROUTING",
                f"! -o lo -s {vaddr} -p tcp --sport {vport} {leaving_unmarked}",
                f"-j NFQUEUE --queue-num {leaving}",
            )
            for vport in vports
        ]
        for vport in vports if kernel_mark is not None else ():
            adopted = f"-p tcp --{{}} {vport} -m mark --mark {kernel_mark:#x}"
            rules += [
                Rule(family, "raw", "PREROUTING", f"-d {vaddr} {adopted.format('dport')}", "-j CT --notrack"),
                Rule(family, "raw", "OUTPUT", f"-s {vaddr} {adopted.format('sport')}", "-j CT --notrack"),
            ]
    return tuple(rules)


def replace(role: str, rules: Sequence[Rule]) -> int:
    """Put in `rules` and take out all earlier rules of `role`, of both families; each table changes at once.

    Returns how many were taken out. Raises: StartError if the programs are missing or refuse.
    """
    comment = f"tcpha {role}"
    taken_out = 0
    for family in FAMILIES:
        mine = [rule for rule in rules if rule.family == family]
        if not mine and _find(_PROGRAM[family] + "-save") is None:
            continue
        if script := _script(comment, mine, _run([_PROGRAM[family] + "-save"], "")):
            _run([_PROGRAM[family] + "-restore", "--noflush", "-w"], script)
            taken_out += sum(line.startswith("-D ") for line in script.splitlines())
    return taken_out


def remove(role: str) -> int:
    """Take out all rules of `role`, of both families; each table changes at once. Idempotent.

    Returns how many there were. Raises: StartError if the programs refuse.
    """
    return replace(role, ())


def tables_in_kernel(family: int) -> dict[str, dict[str, bool]]:
    """Return the tables that exist: table -> chain -> whether packets that no rule decides are accepted.

    Empty with the legacy variant of iptables. Changes nothing.

    Raises: StartError if iptables is missing or the kernel does not answer.
    """
    if "nf_tables" not in _run([_PROGRAM[family] + "-save", "--version"], ""):
        return {}
    request = _NFGENMSG.pack(_ADDRESS_FAMILY[family], 0, 0)
    tables: dict[str, dict[str, bool]] = {}
    netlink = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        for answer in netlink.request(_NFT_GETTABLE, NLM_F_DUMP, request):
            tables[_name(decode_attributes(answer.body, _NFGENMSG.size)[_NFTA_TABLE_NAME])] = {}
        for answer in netlink.request(_NFT_GETCHAIN, NLM_F_DUMP, request):
            chain = decode_attributes(answer.body, _NFGENMSG.size)
            accepts = chain.get(_NFTA_CHAIN_POLICY) == _ACCEPT
            tables.setdefault(_name(chain[_NFTA_CHAIN_TABLE]), {})[_name(chain[_NFTA_CHAIN_NAME])] = accepts
    except OSError as error:
        raise StartError(f"nf_tables cannot be read: {error}") from error
    finally:
        netlink.close()
    return tables


def tidy(family: int, before: Mapping[str, Iterable[str] | None]) -> None:
    """Remove the tables and chains that iptables created for us and that nobody uses.

    before: table -> its chains before our first rule, None if there was no such table. What others use stays: a table
    in which there is a rule, a chain of their own or a policy other than ACCEPT.

    Raises: EdgeError if the kernel refuses for another reason; StartError as `tables_in_kernel`.
    """
    now = tables_in_kernel(family)
    for table, chains in before.items():
        if table not in now:
            continue
        if chains is None:
            if all(now[table].values()):
                _delete(family, table, list(now[table]), whole=True)
            continue
        for chain in set(now[table]) - set(chains):
            if now[table][chain]:
                _delete(family, table, [chain], whole=False)


def _script(comment: str, rules: Sequence[Rule], saved: str) -> str:
    """Return what iptables-restore needs to replace the rules with this comment, given iptables-save's output."""
    lines: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A ") and _comment_of(line) == comment:
            lines.setdefault(table, []).append("-D" + line.removeprefix("-A"))
    for rule in rules:
        words = f'-A {rule.chain} {rule.match} -m comment --comment "{comment}" {rule.target}'
        lines.setdefault(rule.table, []).append(words.rstrip())
    return "".join(f"*{table}\n" + "\n".join(some) + "\nCOMMIT\n" for table, some in lines.items())


def _comment_of(line: str) -> str | None:
    """Return the comment of a rule as iptables-save writes it, None if it has none."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    return words[words.index("--comment") + 1] if "--comment" in words[:-1] else None


def _find(program: str) -> str | None:
    # A process that was not started by root's shell may lack sbin in its PATH.
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def _run(words: Sequence[str], script: str) -> str:
    program = _find(words[0])
    if program is None:
        raise StartError(f"{words[0]} is missing: install the package iptables")
    try:
        done = subprocess.run(
            [program, *words[1:]],
            input=script,
            capture_output=True,
            text=True,
            timeout=_PROGRAM_S,
            check=False,
            process_group=0,  # a Ctrl-C at the terminal is for us: a change that began is finished
        )
    except subprocess.TimeoutExpired as error:
        raise StartError(f"{words[0]} did not end within {_PROGRAM_S:.0f} s") from error
    if done.returncode != 0:
        raise StartError(f"{words[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def _name(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def _delete(family: int, table: str, chains: Sequence[str], *, whole: bool) -> None:
    """Delete empty chains, and the table if `whole`, in one nf_tables transaction that fails if anything is in use.

    pyroute2's nf_tables requests cannot carry NLM_F_NONREC, without which the kernel deletes other people's rules too.
    """
    header = _NFGENMSG.pack(_ADDRESS_FAMILY[family], 0, 0)
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_NONREC
    messages = [Message(_BATCH_BEGIN, NLM_F_REQUEST, 1, _NFGENMSG.pack(socket.AF_UNSPEC, 0, _NFT))]
    for chain in chains:
        body = header + encode_attribute(_NFTA_CHAIN_TABLE, table.encode() + b"\0")
        body += encode_attribute(_NFTA_CHAIN_NAME, chain.encode() + b"\0")
        messages.append(Message(_NFT_DELCHAIN, flags, len(messages) + 1, body))
    if whole:
        messages.append(
            Message(
                _NFT_DELTABLE,
                flags,
                len(messages) + 1,
                header + encode_attribute(_NFTA_TABLE_NAME, table.encode() + b"\0"),
            )
        )
    messages.append(Message(_BATCH_END, NLM_F_REQUEST, len(messages) + 1, messages[0].body))
    netlink = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        netlink.transaction(messages)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOENT):
            raise EdgeError(f"nf_tables: the empty table {table} cannot be removed: {error}") from error
    finally:
        netlink.close()
