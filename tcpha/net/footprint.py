"""Everything a process puts on its host, and its removal: addresses, rules, kernel settings.

What is about to be changed is first written to a file, with what was there before. So whoever comes next, after a stop
or a kill, can undo it and knows the true originals. The order: rules before addresses (else the kernel itself would
answer the first packets), settings before addresses (else a back end would answer ARP); removal the other way round.
Knows nothing of packets. A host is afterwards as before: addresses, iptables-save, sysctls.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal

from tcpha.errors import EdgeError, StartError, TcphaError
from tcpha.net import addresses, bpf_namespace, firewall, link, pins, sysctl
from tcpha.net.occupancy import Occupancy

INHERITS_MARK = "ipv4/tcp_fwmark_accept"
_LARGE_BELOW, _LARGE_BELOW_DEFAULT, _LARGE_BELOW_16_MS = "ipv4/tcp_tso_rtt_log", "9", "14"
"""Below which round trip segments leave in packets as large as can be (docs/adr/0013)."""

# arp_ignore 1, 2 and 8 keep an address of lo to ourselves; 0 and 3 answer for it.
ARP_IGNORE_SILENT = ("1", "2", "8")

_log = logging.getLogger(__name__)

Role = Literal["fe", "be"]
_NAMES: dict[Role, str] = {"fe": "front end", "be": "back end"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process needs on its host.

    iface: the interface that faces clients and peers. vaddrs, vports: the virtual addresses and their ports. queue:
    NFQUEUE number of arriving packets; a back end's leaving packets go to the next one. mark: firewall mark of
    packets that the process makes. kernel_mark: that of connections which the kernel adopts for a back end, None if it
    adopts none.
    """

    iface: str
    vaddrs: tuple[IPv4Address | IPv6Address, ...]
    vports: tuple[int, ...]
    queue: int
    mark: int
    kernel_mark: int | None = None


@dataclass(slots=True)
class _Record:
    """What is ours on the host, as the state file holds it.

    host: boot and network namespace that this is true of. addresses: [interface, address]. sysctls: name -> original.
    tables: family -> table -> chains before us, None without the table. merging: interfaces whose LRO we switched off.
    """

    host: str
    addresses: list[list[str]] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, list[str] | None]] = field(default_factory=dict)
    merging: list[str] = field(default_factory=list)


class Footprint:
    """The changes that one process, in the role of a front end or a back end, makes to its host.

    `state_dir` holds footprint-ROLE.json while anything is installed, also after a kill, and a lock that one process
    holds at a time; so is the role in the network namespace held by one. All calls act on the network namespace of the
    calling thread, and none may be made from a coroutine (pyroute2 runs an event loop of its own inside them).
    """

    def __init__(self, role: Role, state_dir: Path) -> None:
        self._role: Role = role
        self._state_dir = state_dir
        self._file = state_dir / f"footprint-{role}.json"
        self._lock: int | None = None
        self._occupancy = Occupancy(role)

    def install(self, plan: Plan) -> None:
        """Put everything in place, and take away what an earlier run left that is not in the plan. Idempotent.

        What is still right stays untouched meanwhile, so connections that outlived their process go on.

        Raises: StartError with everything of ours removed again.
        """
        if not addresses.exists(plan.iface):
            raise StartError(f"there is no interface {plan.iface}")
        self._take_lock()
        try:
            record = self._load()
            self._drop_unplanned(record, plan)
            self._switch_merging_off(record, plan.iface)
            self._install_rules(record, plan)
            if self._role == "be":
                self._let_sockets_inherit_marks(record, plan)
                self._let_packets_be_large(record)
                self._silence_arp(record, plan)
            self._add_addresses(record, plan)
        except BaseException as error:
            self._undo_failed_install()
            if isinstance(error, (TcphaError, OSError)):
                raise StartError(str(error)) from error
            raise

    def remove(self) -> tuple[str, ...]:
        """Take away everything of ours, also what an earlier run left. Idempotent.

        Returns what was taken away, a phrase each, in the order in which it was done; nothing if nothing was there.
        Raises: EdgeError if something could not be taken away: the state file then still names it. StartError if
        another process of this role runs here, or holds the state directory.
        """
        self._occupancy.take()
        if self._lock is None and not self._state_dir.exists():
            try:
                return self._remove_unrecorded()
            finally:
                self._occupancy.give_up()
        self._take_lock()
        record = self._load()
        faults: list[str] = []
        done: list[str] = []
        for iface, addr in list(record.addresses):
            with _collecting(faults):
                self._remove_address(record, iface, addr)
                done.append(f"{addr} from {iface}")
        with _collecting(faults):
            done += _rules_taken(firewall.remove(self._role))
            self._tidy_tables(record)
        with _collecting(faults):
            done += self._remove_pins()
        settings = self._sysctls(record)
        for name in list(record.sysctls):
            with _collecting(faults):
                settings.restore(name)
                done.append(f"the change of {name}")
        for iface in list(record.merging):
            with _collecting(faults):
                self._switch_merging_on(record, iface)
                done.append(f"the change of {iface}'s large receive offload")
        if faults:
            self._save(record)
            raise EdgeError("not everything could be removed: " + "; ".join(faults))
        self._file.unlink(missing_ok=True)
        self._release_lock()
        return tuple(done)

    def release(self) -> None:
        """Let go of role and state directory, and leave everything in place for the next start."""
        self._release_lock()

    # the steps

    def _drop_unplanned(self, record: _Record, plan: Plan) -> None:
        planned = {(holder_of(self._role, addr, plan.iface), str(addr)) for addr in plan.vaddrs}
        for iface, addr in list(record.addresses):
            if (iface, addr) not in planned:
                self._remove_address(record, iface, addr)
        settings = self._sysctls(record)
        for name in list(record.sysctls):
            if not _is_kept(name, plan):
                settings.restore(name)
        for iface in list(record.merging):
            if iface != plan.iface:
                self._switch_merging_on(record, iface)
        self._save(record)

    def _switch_merging_off(self, record: _Record, iface: str) -> None:
        if link.merges_on_receive(iface):
            record.merging.append(iface)
            self._save(record)
            link.set_merges_on_receive(iface, False)

    def _switch_merging_on(self, record: _Record, iface: str) -> None:
        if addresses.exists(iface):
            link.set_merges_on_receive(iface, True)
        record.merging.remove(iface)

    def _install_rules(self, record: _Record, plan: Plan) -> None:
        if self._role == "fe":
            rules = firewall.front_end_rules(plan.vaddrs, plan.vports, plan.queue)
        else:
            queues = plan.queue, plan.queue + 1
            rules = firewall.back_end_rules(plan.vaddrs, plan.vports, *queues, plan.mark, plan.kernel_mark)
        for family in firewall.FAMILIES:
            tables = {rule.table for rule in rules if rule.family == family}
            if not tables:
                continue
            now = firewall.tables_in_kernel(family)
            known = record.tables.setdefault(str(family), {})
            others = self._record_of_other_role(record.host).tables.get(str(family), {})
            for table in tables - set(known):
                # A table that the other role's process made on this host is ours to remove as well: the last one does.
                chains = now.get(table)
                known[table] = others[table] if table in others else None if chains is None else sorted(chains)
        self._save(record)
        firewall.replace(self._role, rules)

    def _remove_unrecorded(self) -> tuple[str, ...]:
        """Take away what is known to be ours without a record."""
        return (*_rules_taken(firewall.remove(self._role)), *self._remove_pins())

    def _remove_pins(self) -> tuple[str, ...]:
        left = bpf_namespace.remove_left(pins.places(self._role, self._state_dir)[0])
        own = pins.remove(self._role, self._state_dir)
        return (
            *((f"what was pinned for network namespaces that are gone: {left}",) if left else ()),
            *(("programs of the kernel fast path and what they knew",) if own else ()),
        )

    def _tidy_tables(self, record: _Record) -> None:
        for family, before in list(record.tables.items()):
            firewall.tidy(int(family), before)
            del record.tables[family]

    def _let_sockets_inherit_marks(self, record: _Record, plan: Plan) -> None:
        """A connection that the kernel adopts is known by the mark that its socket has of its first segment."""
        if plan.kernel_mark is not None:
            self._sysctls(record).change(INHERITS_MARK, "1")

    def _let_packets_be_large(self, record: _Record) -> None:
        """Where there is such a setting (Linux 5.18), nobody has chosen another value, and it may be written."""
        with suppress(EdgeError):
            if sysctl.read(_LARGE_BELOW) == _LARGE_BELOW_DEFAULT and sysctl.may_write(_LARGE_BELOW):
                self._sysctls(record).change(_LARGE_BELOW, _LARGE_BELOW_16_MS)

    def _silence_arp(self, record: _Record, plan: Plan) -> None:
        """Keep the interface from answering ARP for addresses of lo, and from asking in their name.

        The kernel takes the greater of an interface's value and that of "all", so what "all" has is left at that: in a
        container nothing can be written, but who starts it can set "all". Else setting the interface's is enough,
        unless the value of "all" is one that answers.
        """
        if all(addr.version == 6 for addr in plan.vaddrs):
            return  # neighbour discovery never answers for addresses of lo
        if plan.iface == "lo":
            _log.warning("iface is lo: nothing here keeps other interfaces from answering ARP for addresses of lo")
            return
        settings = self._sysctls(record)
        ignore, announce = f"ipv4/conf/{plan.iface}/arp_ignore", f"ipv4/conf/{plan.iface}/arp_announce"
        if in_effect(ignore) not in ARP_IGNORE_SILENT:
            settings.change(ignore, "1")
        if in_effect(announce) != "2":
            settings.change(announce, "2")
        if (effective := in_effect(ignore)) not in ARP_IGNORE_SILENT:
            raise StartError(
                f"net.ipv4.conf.all.arp_ignore = {effective} makes this host answer ARP for its addresses on lo"
            )

    def _add_addresses(self, record: _Record, plan: Plan) -> None:
        held = addresses.held()
        for addr in plan.vaddrs:
            holder = holder_of(self._role, addr, plan.iface)
            ifaces = held.get(addr, set())
            if self._role == "be" and ifaces - {holder}:
                raise StartError(f"{addr} is on {min(ifaces - {holder})}: a back end must hold it on lo only")
            if ifaces and [holder, str(addr)] not in record.addresses:
                self._warn_of_present(record.host, addr, ifaces)
            # IPv4 answers ARP for an address on any interface; IPv6 only for one on the interface itself.
            if holder in ifaces or (addr.version == 4 and ifaces):
                continue
            if [holder, str(addr)] not in record.addresses:
                record.addresses.append([holder, str(addr)])
                self._save(record)
            addresses.add(holder, addr)

    def _warn_of_present(self, host: str, addr: IPv4Address | IPv6Address, ifaces: set[str]) -> None:
        """An address that was there before is not this process's to remove; another one's may go beneath it."""
        other = _other(self._role)
        known = self._record_of_other_role(host).addresses
        if theirs := [iface for iface in sorted(ifaces) if [iface, str(addr)] in known]:
            told = "%s is on %s already, by this host's %s: it is gone when that ends, until this process starts again"
            _log.warning(told, addr, theirs[0], _NAMES[other])
        elif self._role == "fe":
            told = "%s is on %s already, where it stays in the end: tcpha would put it there itself"
            _log.warning(told, addr, min(ifaces))

    def _remove_address(self, record: _Record, iface: str, addr: str) -> None:
        addresses.remove(iface, addr)
        record.addresses.remove([iface, addr])

    def _undo_failed_install(self) -> None:
        try:
            self.remove()
        except TcphaError as error:
            _log.error("after a failed start: %s", error)
            self._release_lock()

    # the state file

    def _take_lock(self) -> None:
        """Be the only one of this role, here and with this state. Raises: StartError, holding nothing more."""
        if self._lock is not None:
            return
        self._occupancy.take()
        try:
            self._lock = self._locked()
        except StartError:
            self._occupancy.give_up()
            raise

    def _locked(self) -> int:
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = self._state_dir.stat()
            if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise StartError(f"{self._state_dir} can be written by other users")
            descriptor = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"{self._state_dir}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StartError(f"another process in this role holds {self._state_dir}") from error
        return descriptor

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self._occupancy.give_up()

    def _load(self) -> _Record:
        """Return what is ours here and now: nothing, if the file is of another boot or another network namespace."""
        host = _host_identity()
        record = _read_record(self._file)
        return record if record is not None and record.host == host else _Record(host)

    def _save(self, record: _Record) -> None:
        fresh = self._file.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as file:
                json.dump(asdict(record), file, indent=1)
            os.replace(fresh, self._file)
        except OSError as error:
            raise EdgeError(f"{self._file}: {error.strerror}") from error

    def _record_of_other_role(self, host: str) -> _Record:
        record = _read_record(self._state_dir / f"footprint-{_other(self._role)}.json")
        return record if record is not None and record.host == host else _Record(host)

    def _sysctls(self, record: _Record) -> sysctl.Sysctls:
        return sysctl.Sysctls(record.sysctls, lambda: self._save(record))


def _other(role: Role) -> Role:
    return "be" if role == "fe" else "fe"


def holder_of(role: Role, addr: IPv4Address | IPv6Address, iface: str) -> str:
    """Return the interface for a virtual address: lo, unless it must answer neighbour discovery."""
    return iface if role == "fe" and addr.version == 6 else "lo"


def _is_kept(name: str, plan: Plan) -> bool:
    """Does the process that starts need what one before it has set?"""
    if name == INHERITS_MARK:
        return plan.kernel_mark is not None
    return name == _LARGE_BELOW or f"/{plan.iface}/" in name


def _rules_taken(count: int) -> tuple[str, ...]:
    return (f"{count} packet filter rules",) if count else ()


def _read_record(file: Path) -> _Record | None:
    try:
        values = json.loads(file.read_text())
        return _Record(**{each.name: values[each.name] for each in fields(_Record)})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StartError(f"{file} cannot be read ({error}): remove it, then run --clean") from error


def _host_identity() -> str:
    """Return what tells this boot and this network namespace from any other."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {pins.namespace()}"


def in_effect(name: str) -> str:
    """Return what the kernel goes by, for settings of which it takes the greater: the interface's or that of "all"."""
    top, _, last = name.rpartition("/")
    return str(max(int(sysctl.read(name)), int(sysctl.read(f"{top.rpartition('/')[0]}/all/{last}"))))


@contextmanager
def _collecting(faults: list[str]) -> Iterator[None]:
    """Note a fault and go on: what can be removed is removed."""
    try:
        yield
    except TcphaError as error:
        faults.append(str(error))
