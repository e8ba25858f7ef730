"""A SYN flood inside the lab, from addresses nobody has, and what it costs its target. RFC 4987.

Must not know how the target answers. Frames go by a packet socket of the client's node to the front end's interface; a
route there leads answers to the client, which is none of the addresses and drops them. A proxy's SYNs are answered by
its kernel, in whatever process happens to run: so the CPU of the whole lab is told beside the process's, less what it
cost when the front end drops such SYNs at once because they are for an address it does not have.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from random import Random

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from bench import cpu, programs
from bench.arena import IFACE, Stand
from bench.checking_client import Tally, paced
from bench.contenders import Door
from bench.figures import percentile
from tcpha.errors import StartError
from tcpha.lab.node import Node

SOURCES = IPv4Network("198.19.0.0/16")
"""The other half of the benchmarking block (RFC 2544, appendix C.2.2): no lab has an address in it."""
NOBODY = IPv4Address("198.18.0.99")
_FRAMES_MAX = SOURCES.num_addresses
_IP_CHECKSUM, _IP_SOURCE, _TCP_PORT, _TCP_SEQUENCE, _TCP_CHECKSUM = 24, 26, 34, 38, 50
"""Where they begin in a frame."""
_SEED = 4987
_BATCH_S = 0.002
_SENT_SHARE_LEAST = 0.95
_CHECKED_PER_S = 20.0
_SETTLE_S = 0.5


@dataclass(frozen=True, slots=True)
class _Spell:
    """Some seconds of ordinary requests, with a flood or without: SYNs, CPU by role and of the lab, answers."""

    sent: int
    used_s: Mapping[str, float]
    lab_s: float
    tally: Tally


def measure(stand: Stand, per_s: int, seconds: int) -> tuple[dict[str, float], Tally]:
    """Figures of a flood, and what came of the requests that were asked meanwhile.

    `lab_us_per_syn` is CPU of everybody in the lab, the sender included, less that of as many seconds without a flood;
    for the contender that is reached directly the flood goes to nobody, which is what to take off.

    Raises:
        StartError: fewer SYNs than `per_s` could be sent, or no route for the answers can be made.
    """
    client, front = stand.lab.client, stand.lab.fe
    is_baseline = stand.contender.door is Door.BACK_END
    address, port = (str(NOBODY), 80) if is_baseline else (stand.target.address, stand.target.port)
    _route_answers(front, client)
    count = min(_FRAMES_MAX, per_s * seconds)
    flood = frames(hardware_address(client), hardware_address(front), address, port, count)
    quiet = _spell(stand, seconds, lambda: 0)
    flooded = _spell(stand, seconds, lambda: send(client, flood, per_s, seconds))
    figures = _figures(quiet, flooded, seconds)
    flooded.tally.add(quiet.tally)
    return figures, flooded.tally


def _spell(stand: Stand, seconds: int, flood: Callable[[], int]) -> _Spell:
    documents, pids = [stand.document("/1k.html")], stand.pids()
    before, lab = _spent_s(pids), cpu.of_lab(stand.residents())
    with ThreadPoolExecutor(1, "checking") as thread:
        checking = thread.submit(paced, stand.lab.client.enter, stand.target, documents, _CHECKED_PER_S, seconds)
        sent = flood()
        tally = checking.result()
    time.sleep(_SETTLE_S)
    used_s = {role: spent_s - before[role] for role, spent_s in _spent_s(pids).items()}
    return _Spell(sent, used_s, cpu.of_lab(stand.residents()).since(lab), tally)


def _figures(quiet: _Spell, flooded: _Spell, seconds: int) -> dict[str, float]:
    tally, sent = flooded.tally, flooded.sent
    asked = max(1, tally.answers + tally.errors + len(tally.wrong))
    figures = {
        "syns": float(sent),
        "syns_per_s": sent / seconds,
        "lab_us_per_syn": (flooded.lab_s - quiet.lab_s) * 1e6 / sent,
        "answered_share": tally.answers / asked,
    }
    if tally.latencies_s:
        figures["p99_ms"] = percentile(tally.latencies_s, 0.99) * 1e3
    used_s = {role: spent_s - quiet.used_s[role] for role, spent_s in flooded.used_s.items()}
    if used_s:
        figures["process_us_per_syn"] = sum(used_s.values()) * 1e6 / sent
        figures |= {f"process_us_per_syn_{role}": each_s * 1e6 / sent for role, each_s in used_s.items()}
    return figures


def _spent_s(pids: Mapping[str, Collection[int]]) -> dict[str, float]:
    """By role: processes, and the programs that the kernel runs for them."""
    return {role: cpu.of_processes(found) + programs.run_time_s(found) for role, found in pids.items()}


def send(client: Node, flood: list[bytes], per_s: int, seconds: float) -> int:
    """Send frames in turn, in small batches; how many were sent.

    Raises:
        StartError: clearly fewer than `per_s`: it was another flood than the others'.
    """
    with client.enter():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind((IFACE, 0))
        start, sent = time.monotonic(), 0
        while (now := time.monotonic() - start) < seconds:
            for _ in range(min(int(now * per_s) - sent, per_s // 10)):
                raw.send(flood[sent % len(flood)])
                sent += 1
            time.sleep(_BATCH_S)
    return enough(sent, per_s, seconds)


def enough(sent: int, per_s: int, seconds: float) -> int:
    """`sent`. Raises StartError if it is clearly less than was asked for."""
    if sent < _SENT_SHARE_LEAST * per_s * seconds:
        raise StartError(f"only {sent / seconds:,.0f} SYNs a second could be sent, not {per_s:,}")
    return sent


def hardware_address(node: Node) -> str:
    """Of a node's interface, in the usual notation."""
    with node.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((IFACE, 0))
        address: bytes = raw.getsockname()[4]
    return address.hex(":")


def frames(source: str, destination: str, address: str, port: int, count: int) -> list[bytes]:
    """SYNs as a usual client's, each from another address and port: at most 65536.

    source and destination: hardware addresses. One is made by scapy, the others by putting the words that differ in
    place and adding them to the checksums (RFC 1624).
    """
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    segment = TCP(sport=0, dport=port, seq=0, flags="S", window=64240, options=options)
    template = bytes(Ether(src=source, dst=destination) / IP(src="0.0.0.0", dst=address) / segment)
    checksums = [int.from_bytes(template[at : at + 2]) for at in (_IP_CHECKSUM, _TCP_CHECKSUM)]
    random, made = Random(_SEED), []
    for number in random.sample(range(SOURCES.num_addresses), count):
        words = (*divmod(int(SOURCES.network_address) + number, 1 << 16), random.randrange(1024, 1 << 16))
        irs = random.getrandbits(32)
        frame = bytearray(template)
        struct.pack_into("!HH", frame, _IP_SOURCE, *words[:2])
        struct.pack_into("!H", frame, _TCP_PORT, words[2])
        struct.pack_into("!I", frame, _TCP_SEQUENCE, irs)
        struct.pack_into("!H", frame, _IP_CHECKSUM, with_words(checksums[0], words[:2]))
        struct.pack_into("!H", frame, _TCP_CHECKSUM, with_words(checksums[1], (*words, *divmod(irs, 1 << 16))))
        made.append(bytes(frame))
    return made


def with_words(checksum: int, words: Iterable[int]) -> int:
    """The checksum of what had these words 0 before (RFC 1624)."""
    total = (~checksum & 0xFFFF) + sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _route_answers(front: Node, client: Node) -> None:
    done = front.run(["ip", "route", "replace", str(SOURCES), "via", str(client.ipv4)])
    if done.returncode != 0:
        raise StartError(f"no route for the answers to a flood: {done.stderr.strip()}")
