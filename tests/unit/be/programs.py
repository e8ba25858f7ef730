"""The back end's programs and the host's sockets as the agent's process sees them, without a kernel: a model.

`Programs` does with one four-tuple what be_agent.h does; that the real ones do so is for tests/kernel/test_be_owner.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import Act, Answer, Carried, Entries, Ran, Rank, Whose, encode_tuple
from tcpha.net.sockdiag import TCP_ESTABLISHED, TcpSocket, connection_of
from tcpha.proto.flow_fields import Fields
from tcpha.proto.ip import ConnectionKey, connection_key, key_addresses, key_ports
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import SeqNum
from tests.packet.be_playbook import VIPS

MARK = 0x7C0B
VIP, CLIENT = ip_address(VIPS[4]), ip_address("198.18.0.10")
RANK = Rank(23, 5, 10, 7)
_FLAGS = {Whose.AGENT: 8, Whose.UNSEEN: 1, Whose.PROGRAMS: 3, Whose.OVER: 7}
_VALUE = struct.Struct("=II12xI16xI20x")
PIECE = 1024
"""Entries that are read at a time."""


def identity(port: int = 40_000, iss: int = 200) -> Identity:
    return Identity(connection_key(CLIENT, port, VIP, 80), SeqNum(100), SeqNum(iss))


def carried(of: Identity, whose: Whose = Whose.PROGRAMS, **changes: Any) -> Carried:
    return replace(Carried(of, RANK, whose, cookie_of(of)), **changes)


def cookie_of(of: Identity) -> bytes:
    """Of its socket."""
    return struct.pack("!HxxI", key_ports(of.key)[0], of.iss)


def socket_of(of: Identity, *, mark: int = MARK, state: int = TCP_ESTABLISHED) -> TcpSocket:
    client, server = key_addresses(of.key)
    client_port, server_port = key_ports(of.key)
    # As a dual-stack listener's connections are told of: in their IPv6 form.
    form = [(bytes(10) + b"\xff\xff" + each) if len(each) == 4 else each for each in (server, client)]
    return TcpSocket(10, state, cookie_of(of), struct.pack("!HH16s16s", server_port, client_port, *form), mark)


@dataclass
class Programs:
    """In the place of `Adopter`."""

    entries: dict[bytes, Carried] = field(default_factory=dict)
    ran: dict[Identity, Ran] = field(default_factory=dict)
    remembered: list[tuple[Identity, int | None]] = field(default_factory=list)
    orders: list[tuple[Act, Identity]] = field(default_factory=list)
    shown: list[bytes] = field(default_factory=list)
    news_to_tell: list[tuple[list[Fields], list[tuple[int, Fields]]]] = field(default_factory=list)
    patience: list[bool] = field(default_factory=list)
    """At each question for news."""
    ages_counted: int = 0
    answers_to_tell: list[Answer] = field(default_factory=list)
    waits: bool = False
    """Is something written down that is not told yet?"""
    shows: bool = True
    """Does the kernel let them be shown packets?"""
    adopts: bool = False
    tables: list[tuple[int, int, int]] = field(default_factory=list)
    """Of whose messages which were seen: sender id, epoch, table."""
    faults: list[EdgeError] = field(default_factory=list)
    """What attaching says."""
    closed: int = 0
    pieces_read: int = 0
    busy_times: int = 0
    """So often an order is in vain: somebody else changes the entry."""

    def add(self, *known: Carried) -> None:
        for each in known:
            self.entries[encode_tuple(each.identity.key)] = each

    def whose(self, of: Identity) -> Whose | None:
        found = self.look_up(encode_tuple(of.key))
        return None if found is None or found.identity != of else found.whose

    # --- what `Adopter` has

    @property
    def live(self) -> int:
        return sum(each.lives for each in self.entries.values())

    def look_up(self, four_tuple: bytes) -> Carried | None:
        return self.entries.get(four_tuple)

    def flows(self) -> Iterator[tuple[bytes, Carried]]:
        yield from list(self.entries.items())

    def walk(self) -> Iterator[Entries]:
        """They are there as they were at the beginning."""
        values = [
            _VALUE.pack(each.identity.irs, each.identity.iss, _FLAGS[each.whose] | 32 * each.is_silent, each.seen)
            for each in self.entries.values()
        ]
        keys = list(self.entries)
        for at in range(0, len(keys), PIECE):
            self.pieces_read += 1
            yield Entries(b"".join(keys[at : at + PIECE]), b"".join(values[at : at + PIECE]))

    def order(self, act: Act, of: Identity, rank: Rank | None = None) -> bool:
        self.orders.append((act, of))
        four_tuple = encode_tuple(of.key)
        known = self.entries.get(four_tuple)
        if self.busy_times:
            self.busy_times -= 1
            return False
        if act is Act.TAKE and rank is not None:
            if known is not None and (known.lives or (known.whose is Whose.UNSEEN and known.identity != of)):
                return False
            is_noted = known is not None and known.whose is Whose.AGENT and known.identity != of
            if known is None or not (is_noted and rank.is_before(known.rank)):  # a later one's note stays
                self.entries[four_tuple] = Carried(of, rank, Whose.AGENT, bytes(8))
            return True
        if known is None or known.identity != of:
            return False
        adopted = known.whose in (Whose.UNSEEN, Whose.PROGRAMS)
        match act:
            case Act.RELEASE if known.whose is Whose.AGENT:
                del self.entries[four_tuple]
            case Act.FORGET if known.whose in (Whose.UNSEEN, Whose.OVER):
                del self.entries[four_tuple]
            case Act.SILENCE if adopted:
                self.entries[four_tuple] = replace(known, is_silent=True)
            case Act.END if known.lives and not known.is_silent:
                self.entries[four_tuple] = replace(known, whose=Whose.OVER)
            case Act.END if adopted:
                del self.entries[four_tuple]
            case Act.ASK if adopted:
                pass
            case _:
                return False
        return True

    def claim_identity(self, of: Identity, period: int) -> Ran:
        return self.ran.setdefault(of, Ran.AGENT)

    def take_over(self, of: Identity, period: int) -> bool:
        if self.ran.get(of) is Ran.RAN:
            return False
        self.ran[of] = Ran.AGENT
        return True

    def remember(self, of: Identity, period: int | None = None) -> None:
        self.remembered.append((of, period))

    def show(self, packet: bytes) -> None:
        if not self.shows:
            raise EdgeError("the kernel says no")
        self.shown.append(packet)

    def news(self, *, patient: bool = False) -> tuple[list[Fields], list[tuple[int, Fields]]]:
        self.patience.append(patient)
        return self.news_to_tell.pop(0) if self.news_to_tell else ([], [])

    def count_age(self) -> None:
        self.ages_counted += 1

    def has_more(self) -> bool:
        return self.waits or bool(self.news_to_tell)

    def answers(self) -> list[Answer]:
        told, self.answers_to_tell = self.answers_to_tell, []
        return told

    def renew(self, period: int, floor: int = -1, lease_s: float = 0.0, room: int = 0) -> None:
        self.adopts = True

    def hold(self) -> None:
        self.adopts = False

    def set_peer(self, address: bytes, port: int, sender: int, epoch: int, table: int) -> None:
        self.tables.append((sender, epoch, table))

    def set_targets(self, targets: Iterable[tuple[bytes, int]]) -> None:
        pass

    def attach(self, iface: str) -> None:
        if self.faults:
            raise self.faults.pop(0)

    def close(self) -> None:
        self.closed += 1

    def fileno(self) -> int:
        return 99


@dataclass
class Sockets:
    """In the place of `SocketDiagnostics`."""

    present: list[TcpSocket] = field(default_factory=list)
    destroyed: list[TcpSocket] = field(default_factory=list)
    looked_for: list[ConnectionKey] = field(default_factory=list)
    kept: dict[TcpSocket, EdgeError | None] = field(default_factory=dict)
    """Those that the kernel does not destroy, and what it says, if anything."""

    def find_connection(self, key: ConnectionKey) -> TcpSocket | None:
        self.looked_for.append(key)
        wanted = encode_tuple(key)
        return next((each for each in self.present if encode_tuple(connection_of(each)) == wanted), None)

    def marked(self, mark: int) -> list[TcpSocket]:
        return [each for each in self.present if each.mark == mark]

    def destroy(self, found: TcpSocket) -> bool:
        if found in self.kept:
            if (error := self.kept[found]) is not None:
                raise error
            return False
        self.destroyed.append(found)
        if found in self.present:
            self.present.remove(found)
        return True
