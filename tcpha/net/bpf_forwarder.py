"""The front end's program in the kernel: loaded, told what it must know, attached, and asked what it saw.

Knows what lies in its maps (tcpha.kernel.fe_maps), not what the dispatcher decides. The order of steps: open, `retain`
(what an earlier process left), `set_targets`, `set_neighbour` or `set_tunnel` for each back end, `renew`, `attach`.

Flows, the ways to the back ends and the program's place at the interface outlive the process where `pins` names a
directory: a front end that is killed goes on forwarding. Without a call of `renew` for a minute the program answers no
SYN any more and takes no ACK out: only what is established goes on then. What needs a decision comes by a ring buffer
(`read`, when `fileno` becomes readable), or, where that cannot be, by the host's ways: netfilter's queue.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tcpha.errors import EdgeError
from tcpha.kernel import fe_maps
from tcpha.kernel.be_maps import encode_endpoint, encode_number, encode_tuple
from tcpha.kernel.fe_maps import (
    NS,
    BackEnd,
    Beginning,
    Carried,
    Standing,
    Way,
    WayKind,
    write_flow,
    write_tuple,
)
from tcpha.net import bpf_terms
from tcpha.net.bpf_attach import Filter, Link, attach, attach_for, pin_all
from tcpha.net.bpf_namespace import PIN, attach_mark
from tcpha.net.bpf_object import Loaded, load
from tcpha.net.bpf_ring import RingReader
from tcpha.net.bpf_table import PLACES, Table
from tcpha.net.bpf_terms import Terms
from tcpha.proto.cookie import Cookie
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Identity
from tcpha.proto.promise import Promise

_LINK_PIN = "link"
PROGRAMS = Path(__file__).parent.parent / "kernel" / "fe.bpf.o"
LEASE_S = 60
"""For so long the program goes on with cookies after `renew`."""
READ_LEASE_S = 4
"""For so long it puts packets into the ring."""
PINNED = (_LINK_PIN, "flows", "ways", "terms", PIN)

_PROGRAM = "fe_ingress"
_NO_MARK = 0
# To fetch a member from its class costs a quarter of a microsecond, and every connection asks.
FORWARDED, HELD, HANDED = Standing.FORWARDED, Standing.HELD, Standing.HANDED


def obstacle() -> str | None:
    """Why this host cannot run the program, in words for a person; None if nothing speaks against it."""
    try:
        load(PROGRAMS).close()
    except EdgeError as error:
        return str(error)
    return None


class Forwarder:
    """The program fe_ingress and its maps."""

    def __init__(
        self, iface: str, keyring: Keyring, promise: Promise, window_octets: int, *, pins: Path | None = None
    ) -> None:
        """Load it. `promise`, `window_octets`: what Handshake is made of. `pins`: a directory in a bpf file system.

        What an earlier process left there goes on. Raises: EdgeError, also if that cannot go on.
        """
        self._iface = iface
        self._mac = b""
        self._handshake = (promise, window_octets)
        self._pins = pins
        self._attached: Link | Filter | None = None
        if pins is not None:
            pins.mkdir(mode=0o700, parents=True, exist_ok=True)
            bpf_terms.agree(pins, Terms(fe_maps.VERSION, _NO_MARK))
        with ExitStack() as undo:
            self._loaded: Loaded = undo.enter_context(load(PROGRAMS, pins=pins))
            self._maps = self._loaded.maps
            self._flows = Table(self._maps["flows"])
            self._ring = RingReader(self._maps["raised"])
            undo.callback(self._ring.close)
            self.read_mac()
            for index, entry in enumerate(fe_maps.encode_keys(keyring)):
                self._maps["keys"].update(encode_number(index), entry)
            self._ways = dict(self._known_ways())
            undo.pop_all()

    # --- what the program must know

    def retain(self, backends: Collection[BackEnd]) -> list[tuple[BackEnd, Carried]]:
        """Return the flows that an earlier process left, each with its back end; forget those of other back ends.

        What is held is forgotten as well: only that process knew why. So is what cannot be read. Raises: EdgeError.
        """
        names = {number: backend for backend, number in self._ways.items()}
        kept: list[tuple[BackEnd, Carried]] = []
        unwanted: list[bytes] = []
        for four_tuple, value in self._flows.items():
            flow = _readable(four_tuple, value)
            backend = None if flow is None else names.get(flow.way)
            if flow is None or backend is None or backend not in backends or flow.is_held:
                unwanted.append(four_tuple)
            else:
                kept.append((backend, flow))
        self._flows.delete_all(unwanted)
        for backend in self._ways.keys() - set(backends):
            number = encode_number(self._ways.pop(backend))
            self._maps["ways"].update(number, bytes(self._maps["ways"].shape.value_octets))
        return kept

    def read_mac(self) -> None:
        """Send with the MAC that the interface has now, by ways that are set from now on. Raises: EdgeError."""
        self._mac = _mac_of(self._iface)
        self._maps["config"].update(encode_number(0), fe_maps.encode_config(self._mac, *self._handshake))

    def set_targets(self, targets: Iterable[BackEnd]) -> None:
        """Serve these virtual addresses and ports, and no others. Raises: EdgeError."""
        wanted = {encode_endpoint(address, port) for address, port in targets}
        for old in set(self._maps["targets"].keys()) - wanted:
            self._maps["targets"].delete(old)
        for each in wanted:
            self._maps["targets"].update(each, encode_number(1))

    def renew(self, utc_s: float, period_floor: int) -> None:
        """Go on, by this UTC; cookies of periods up to `period_floor` are void. Raises: EdgeError."""
        self._renew(utc_s, period_floor, READ_LEASE_S)

    def leave(self, utc_s: float, period_floor: int) -> None:
        """The same, and the ring is not read any more: nothing goes there. Raises: EdgeError."""
        self._renew(utc_s, period_floor, 0)

    def _renew(self, utc_s: float, period_floor: int, read_lease_s: int) -> None:
        boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        until, read_until = (boot_ns + lease_s * NS for lease_s in (LEASE_S, read_lease_s))
        value = fe_maps.encode_times(int(utc_s * NS) - boot_ns, until, period_floor, read_until)
        self._maps["times"].update(encode_number(0), value)

    def hold(self) -> None:
        """Leave SYNs and unknown segments to the dispatcher until `renew`; known flows go on. Raises: EdgeError."""
        self._maps["times"].update(encode_number(0), fe_maps.encode_times(0, 0, -1))

    def set_neighbour(self, backend: BackEnd, mac: bytes) -> None:
        """Packets for a back end go to this MAC, unchanged. Raises: EdgeError."""
        self._set_way(Way(WayKind.NEIGHBOUR, backend, mac, self._mac))

    def set_tunnel(self, backend: BackEnd, source: bytes, destination: bytes, carried_octets: int) -> None:
        """Packets for a back end go into IP packets between two packed addresses, up to a size. Raises: EdgeError."""
        kind = WayKind.TUNNEL_IPV4 if len(source) == 4 else WayKind.TUNNEL_IPV6
        self._set_way(
            Way(kind, backend, source=source, destination=destination, carried_octets=min(carried_octets, 0xFFFF))
        )

    def close_way(self, backend: BackEnd) -> None:
        """Packets for a back end go up, until its way is set (again). Raises: EdgeError."""
        self._set_way(Way(WayKind.NONE, backend))

    # --- flows

    def carry(
        self, identity: Identity, backend: BackEnd, period: int, last_ack: int, last_seen_s: float,
        noted: Sequence[int] = (), *, confirmed: bool = True,
    ) -> bool:  # fmt: skip
        """The back end has the connection: forward its packets. False: there is no room, it stays as it was.

        Before it is `confirmed`, packets with octets go up. The other arguments are what `Flow` has of the same names.
        Where no way is set yet, packets go up. Raises: EdgeError.
        """
        if backend not in self._ways:
            self.close_way(backend)
        flows = self._flows
        write_tuple(identity.key, flows.key)
        standing = FORWARDED if confirmed else HANDED
        write_flow(identity, period, last_ack, last_seen_s, noted, self._ways[backend], standing, flows.value)
        return flows.update()

    def begin_all(self, flows: Sequence[Beginning]) -> int:
        """As `carry` of each, not confirmed; return how many there was room for, from the first on. Raises: EdgeError.

        Of more than `PLACES` only so many are looked at.
        """
        table, ways = self._flows, self._ways
        keys, values = table.keys, table.values
        for at, (identity, backend, period, last_ack, last_seen_s, noted) in enumerate(flows[:PLACES]):
            if backend not in ways:
                self.close_way(backend)
            write_tuple(identity.key, keys, at)
            write_flow(identity, period, last_ack, last_seen_s, noted, ways[backend], HANDED, values, at)
        return table.update_first(min(len(flows), PLACES))

    def hold_flow(
        self, identity: Identity, period: int, last_ack: int, last_seen_s: float, noted: Sequence[int] = ()
    ) -> bool:
        """Pass every packet of the connection up but its SYNs. False: there is no room. Raises: EdgeError."""
        flows = self._flows
        write_tuple(identity.key, flows.key)
        write_flow(identity, period, last_ack, last_seen_s, noted, 0, HELD, flows.value)
        return flows.update()

    def forget(self, key: ConnectionKey) -> bool:
        """Pass every packet of the connection up; was it known? Raises: EdgeError."""
        write_tuple(key, self._flows.key)
        return self._flows.delete()

    def forget_all(self, keys: Iterable[ConnectionKey]) -> int:
        """The same of many; return how many were known. Raises: EdgeError."""
        return self._flows.delete_all(list(map(encode_tuple, keys)))

    def look_up(self, key: ConnectionKey) -> Carried | None:
        """What the program knows of a connection: when it was seen last, what it acknowledged. Raises: EdgeError."""
        flows = self._flows
        write_tuple(key, flows.key)
        return fe_maps.decode_flow(bytes(flows.key), bytes(flows.value)) if flows.lookup() else None

    def flows(self) -> Iterator[Carried]:
        """Every connection that the program knows; a few thousand are read at once. Raises: EdgeError."""
        for four_tuple, value in self._flows.items():
            yield fe_maps.decode_flow(four_tuple, value)

    # --- packets that need a decision

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when packets wait in the ring."""
        return self._ring.fileno()

    def read(self) -> list[tuple[bytes, Cookie | None]]:
        """Return some of the packets that wait in the ring, oldest first, as `fe_maps.decode_raised` reads them."""
        return list(map(fe_maps.decode_raised, self._ring.read()))

    # --- its place

    def attach(self) -> None:
        """Begin; what an earlier process left at the interface is replaced without a gap.

        So is what began before, at the interface that had this name then. Raises: EdgeError, with nothing begun; what
        was there goes on.
        """
        if self._attached is not None:
            self._attached.detach()
            self._attached = None
        program = self._loaded.programs[_PROGRAM]
        if self._pins is None:
            self._attached = attach(program, self._iface, "ingress")
            return
        place = self._pins / _LINK_PIN
        link = attach_for(place, program, self._iface, "ingress")
        try:
            with attach_mark() as mark:
                pin_all([(link, place), (mark, self._pins / PIN)])
        except EdgeError:
            link.close()
            raise
        self._attached = link

    def detach(self) -> None:
        """End; every packet goes up. Flows stay known. Raises: EdgeError."""
        if self._pins is not None:
            (self._pins / _LINK_PIN).unlink(missing_ok=True)
        if self._attached is not None:
            self._attached.detach()
            self._attached = None

    def counters(self) -> dict[str, int]:
        """Return what the program counted since it was loaded. Raises: EdgeError."""
        counts = self._maps["counts"]
        return {name: counts.lookup_sum(encode_number(at)) for at, name in enumerate(fe_maps.COUNTS)}

    def close(self) -> None:
        """Let go of everything. What is pinned goes on: `detach` and `tcpha.net.pins` end it. Raises: EdgeError."""
        if isinstance(self._attached, Link):
            self._attached.close()
        elif self._attached is not None and self._pins is None:
            self._attached.detach()
        self._attached = None
        self._ring.close()
        self._loaded.close()

    def _set_way(self, way: Way) -> None:
        ways = self._maps["ways"]
        number = self._ways.get(way.backend)
        if number is None:
            number = next((each for each in range(fe_maps.WAYS) if each not in self._ways.values()), None)
            if number is None:
                raise EdgeError(f"more than {fe_maps.WAYS} back ends")
            self._ways[way.backend] = number
        known = ways.lookup(encode_number(number))
        ident = 0 if known is None else fe_maps.decode_way(known)[1]
        ways.update(encode_number(number), fe_maps.encode_way(way, ident))

    def _known_ways(self) -> Iterator[tuple[BackEnd, int]]:
        for number in range(fe_maps.WAYS):
            octets = self._maps["ways"].lookup(encode_number(number))
            if octets is not None and (backend := fe_maps.decode_way(octets)[0]) is not None:
                yield backend, number


def _readable(four_tuple: bytes, value: bytes) -> Carried | None:
    try:
        return fe_maps.decode_flow(four_tuple, value)
    except ValueError:  # a state that only another version knows
        return None


def _mac_of(iface: str) -> bytes:
    """Return the hardware address of an interface. Raises: EdgeError."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as looking:
        try:
            looking.bind((iface, 0))
        except OSError as error:
            raise EdgeError(f"there is no interface {iface}") from error
        return bytes(looking.getsockname()[4])
