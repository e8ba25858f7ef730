"""The back end's programs in the kernel: loaded, told what they must know, attached, and asked what they did.

Knows what lies in their maps (tcpha.kernel.be_maps), not what the agent decides. The order of steps: open, `renew`
(which periods), `set_peer` (who may hand over), `set_targets` (what for), `attach`. Without a call of `renew` for a
while the programs adopt nothing any more: an agent that hangs takes nothing. The program that adopts ends with the
process.

Where `pins` names a directory, the programs that carry what is adopted outlive the process, and with them which
connections those are and which ones ran.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tcpha.errors import EdgeError
from tcpha.kernel import be_maps
from tcpha.kernel.be_maps import Act, Answer, Carried, Entries, Ran, Rank
from tcpha.net import bpf_terms, sysctl
from tcpha.net.bpf import BpfMap, MapShape
from tcpha.net.bpf_attach import Direction, Filter, Link, attach, attach_for, pin_all
from tcpha.net.bpf_journal import Journal, MappedArray, Piece, Progress
from tcpha.net.bpf_namespace import PIN, attach_mark
from tcpha.net.bpf_object import Loaded, ObjectFile, kernel_function, load
from tcpha.net.bpf_ring import RingReader
from tcpha.net.bpf_syscall import tried_again
from tcpha.net.bpf_table import Table
from tcpha.net.bpf_terms import Terms
from tcpha.proto.flow_fields import FIELD_OCTETS, Fields
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Identity

PROGRAMS = Path(__file__).parent.parent / "kernel" / "be.bpf.o"
PERIODS_BEFORE, PERIODS_AFTER = 2, 1
"""Around the present one: cookies of other periods no front end accepts."""

LEASE_S = 60.0
"""For so long the programs go on after `renew`, unless it says otherwise."""
UNLIMITED = 1 << 32
"""Room for more connections than the map of flows has."""

_PREFIX = "ran-"
_CARRYING: tuple[tuple[str, Direction], ...] = (("be_segments", "ingress"), ("be_egress", "egress"))
"""What outlives the process: the programs that adopted connections need."""
_ADOPTING: tuple[str, Direction] = ("be_ingress", "ingress")
_NS = 1_000_000_000
_HEADERS_OCTETS = 60
"""Of the largest that the programs read: IPv6 and TCP without options."""
# What the host must allow before the kernel makes sockets of other hosts' handshakes.
_SETTINGS = {
    "ipv4/tcp_syncookies": ("1", "2"),
    "ipv4/tcp_timestamps": ("1", "2"),
    "ipv4/tcp_sack": ("1",),
    "ipv4/tcp_window_scaling": ("1",),
}
INHERITS_MARK = "ipv4/tcp_fwmark_accept"
"""The setting under which a socket bears the mark of the packet it was made of: it has to be 1."""


def obstacle() -> str | None:
    """Why this host cannot run the programs, in words for a person; None if nothing speaks against it.

    They are loaded, and thrown away again. `INHERITS_MARK` is 1, or can be set.
    """
    try:
        for name in sorted(ObjectFile(PROGRAMS).kernel_functions()):
            kernel_function(name)
        for name, wanted in _SETTINGS.items():
            if (value := sysctl.read(name)) not in wanted:
                return f"net.{name.replace('/', '.')} is {value}, not {' or '.join(wanted)}"
        if sysctl.read(INHERITS_MARK) != "1" and not sysctl.may_write(INHERITS_MARK):
            return f"net.{INHERITS_MARK.replace('/', '.')} is not 1 and cannot be written"
        tried_again(partial(load, PROGRAMS)).close()
    except EdgeError as error:
        return str(error)
    return None


class Adopter:
    """The programs and their maps."""

    def __init__(
        self, own: tuple[bytes, int], keyring: Keyring, *, mark: int, retry_mark: int, pins: Path | None = None
    ):
        """Load them. `own`: packed address and port of the handoff channel here. `pins`: a directory in a bpf file
        system; what an earlier process left there goes on. Raises: EdgeError, also if that cannot go on.
        """
        self._own = be_maps.encode_endpoint(*own)
        self._marks = (mark, retry_mark)
        self._pins = pins
        self._attached: list[Link | Filter] = []
        self._generations: dict[int, BpfMap] = {}
        if pins is not None:
            bpf_terms.agree(pins, Terms(be_maps.VERSION, mark))
        with ExitStack() as undo:
            self._loaded: Loaded = undo.enter_context(load(PROGRAMS, pins=pins))
            self._maps = self._loaded.maps
            inner = next(each.inner for each in ObjectFile(PROGRAMS).maps if each.name == "ran")
            if inner is None:
                raise EdgeError(f"{PROGRAMS}: ran is no map of maps")
            self._generation: MapShape = inner
            self._ring = RingReader(self._maps["events"])
            self._config = MappedArray(self._maps["config"])
            self._accepted = range(0)
            """Periods whose cookies are accepted, whenever anything is."""
            self._periods: tuple[int, int] | None = None
            self._progress = Progress(self._maps["progress"])
            journals = [
                Journal(self._maps[name], self._progress, number)
                for number, name in enumerate((*be_maps.CLOSED, *be_maps.HELD))
            ]
            self._closed, self._held = journals[: len(be_maps.CLOSED)], journals[len(be_maps.CLOSED) :]
            self._held_before = [0] * len(self._held)
            """How far each had been written at the last call of `news` or `count_age`."""
            self._asked = [MappedArray(self._maps[name]) for name in be_maps.ASKED]
            self.overruns = 0
            """Connections that were to be told of, and were overwritten before."""
            self._flows = Table(self._maps["flows"])
            self.hold()
            for index, entry in enumerate(be_maps.encode_keys(keyring)):
                self._maps["keys"].update(be_maps.encode_number(index), entry)
            undo.pop_all()

    # --- what the programs must know

    def renew(self, period: int, floor: int = -1, lease_s: float = LEASE_S, room: int = UNLIMITED) -> None:
        """Go on for `lease_s`: cookies of the periods around `period` are accepted, none up to `floor`.

        Adopt while fewer than `room` connections live.

        Raises: EdgeError.
        """
        wanted = range(period - PERIODS_BEFORE, period + PERIODS_AFTER + 1)
        remembered = range(wanted.start - 1, wanted.stop + 1)
        if self._generations.keys() != set(remembered):
            for old in [each for each in self._known() if each not in remembered]:
                self._forget(old)
            for each in remembered:
                self._generation_of(each)
        self._accepted = range(max(wanted.start, floor + 1), wanted.stop)
        self._configure(self._accepted.start, len(self._accepted), time.monotonic_ns() + int(lease_s * _NS), room)

    def hold(self) -> None:
        """Adopt nothing until `renew` is called; what is adopted goes on. Raises: EdgeError."""
        self._configure(0, 0, 0, 0)

    def set_peer(self, address: bytes, port: int, sender: int, epoch: int, table: int) -> None:
        """Messages of this front end are accepted under this epoch.

        `table`: one that no peer has, and not that of the epoch before: while this is replaced, a program may still
        write there. Raises: EdgeError.
        """
        self._maps["peers"].update(be_maps.encode_endpoint(address, port), be_maps.encode_peer(epoch, table, sender))

    def set_targets(self, targets: Iterable[tuple[bytes, int]]) -> None:
        """Adopt for these virtual addresses and ports, and for no others. Raises: EdgeError."""
        wanted = {be_maps.encode_endpoint(address, port) for address, port in targets}
        for old in set(self._maps["targets"].keys()) - wanted:
            self._maps["targets"].delete(old)
        for each in wanted:
            self._maps["targets"].update(each, be_maps.encode_number(1))

    def attach(self, iface: str) -> None:
        """Begin; programs of an earlier process are replaced without a gap.

        So are those that began before at an interface of this name that is gone. Raises: EdgeError, with nothing begun;
        what carried before goes on.
        """
        self._end_attached()
        programs, to_pin = self._loaded.programs, list[tuple[Link, Path]]()
        try:
            for name, direction in _CARRYING:
                if self._pins is None:
                    self._attached.append(attach(programs[name], iface, direction))
                else:
                    to_pin.append((attach_for(self._pins / name, programs[name], iface, direction), self._pins / name))
                    self._attached.append(to_pin[-1][0])
            # Behind the others: what it makes of a datagram they need not look at.
            self._attached.append(attach(programs[_ADOPTING[0]], iface, _ADOPTING[1]))
            if self._pins is not None:
                to_pin.append((attach_mark(), self._pins / PIN))
                self._attached.append(to_pin[-1][0])
            pin_all(to_pin)
        except EdgeError:
            self._end_attached()
            raise

    def detach(self) -> None:
        """End; sockets that were made stay, and their packets go where they went before. Raises: EdgeError."""
        if self._pins is not None:
            for name, _ in _CARRYING:
                (self._pins / name).unlink(missing_ok=True)
        self._end_attached()

    def _end_attached(self) -> None:
        """But for what is pinned."""
        while self._attached:
            self._attached.pop().detach()

    # --- who runs what

    def claim_message(self, table: int, epoch: int, sequence: int) -> bool:
        """May the agent run this HANDOFF? Then no program does, nor a replay of it. Raises: EdgeError."""
        program = self._loaded.programs["be_claim"]
        return be_maps.decode_claim(program.run(context=be_maps.encode_claim(table, epoch, sequence)).context)

    def claim_identity(self, identity: Identity, period: int) -> Ran:
        """Make the connection the agent's, to run, refuse, or remember, unless a program had it first: what it is.

        `period`: that of its cookie. Of one that no front end accepts any more nothing is kept. Raises: EdgeError.
        """
        if period not in self._generations:
            return Ran.AGENT
        generation, name = self._generations[period], be_maps.encode_name(identity)
        try:
            if generation.insert(name, be_maps.encode_number(Ran.AGENT)):
                return Ran.AGENT
        except EdgeError as error:
            if not _is_full(error):
                raise
            return Ran.AGENT  # no program finds room, either
        known = generation.lookup(name)
        return Ran.AGENT if known is None else Ran(be_maps.decode_number(known))

    def take_over(self, identity: Identity, period: int) -> bool:
        """Make a connection the agent's that never got a socket; False: it has run after all.

        To be called when its four-tuple is the agent's (`Act.TAKE`). Raises: EdgeError.
        """
        generation, name = self._generations.get(period), be_maps.encode_name(identity)
        known = None if generation is None else generation.lookup(name)
        if generation is None or known is None:
            return True
        if be_maps.decode_number(known) == Ran.RAN:
            return False
        generation.update(name, be_maps.encode_number(Ran.AGENT))
        return True

    def remember(self, identity: Identity, period: int | None = None) -> None:
        """Let no program run a connection, nor again.

        `period`: the low 16 bits of its cookie's, as `Rank` has them; None: any that is accepted. Raises: EdgeError.
        """
        name, value = be_maps.encode_name(identity), be_maps.encode_number(Ran.AGENT)
        if period is None:
            periods = [each for each in self._generations if each in self._accepted]
        else:
            periods = [each for each in self._generations if each & 0xFFFF == period]
        for each in periods:
            try:
                self._generations[each].update(name, value)
            except EdgeError as error:
                if not _is_full(error):
                    raise

    def order(self, act: Act, identity: Identity, rank: Rank | None = None) -> bool:
        """Have something done if the four-tuple is still this connection's; was it done?

        Not either, now and then, where a program changes the same entry at this moment. `rank`: of what is taken, or
        of the HANDOFF that asks. Raises: EdgeError.
        """
        program = self._loaded.programs["be_order"]
        return be_maps.decode_order(program.run(context=be_maps.encode_order(act, identity, rank)).context)

    def show(self, packet: bytes) -> None:
        """Let them see a client's packet that came past the interface, in a tunnel. Raises: EdgeError.

        They read headers alone, which say how long it is; and a page is all that the kernel lets them be run on.
        """
        kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        self._loaded.programs["be_segments"].run(bytes(12) + kind + packet[:_HEADERS_OCTETS])

    # --- what they did

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to tell."""
        return self._ring.fileno()

    def answers(self, limit: int = 256) -> list[Answer]:
        """Return what was asked for by `Act.ASK`, or by a HANDOFF that came again. Empties what has become readable."""
        answers = [be_maps.decode_answer(record) for record in self._ring.read(limit)]
        return [each for each in answers if each is not None]

    def news(self, *, patient: bool = False) -> tuple[list[Fields], list[tuple[int, Fields]]]:
        """Return what was written down since the last call.

        Connections that are over, in the form of CLOSED; and such as front ends asked about, in the form of FLOWS, by
        the front end's sender id, without those that are over by now. If `patient`, of the latter only those that were
        there at the last call, or at that of `count_age`: many are over at this one. Where there is nothing, the next
        connection makes `fileno` readable; until then (`has_more`) nobody is woken.
        """
        closed, held = self._read_closed(), self._read_held(patient)
        if not closed and not held and not self.has_more():
            self._progress.look()
            closed, held = self._read_closed(), self._read_held(patient)
        return closed, held

    def count_age(self) -> None:
        """What is written down by now the next call of `news` returns, however patient."""
        self._held_before = [journal.end() for journal in self._held]

    def has_more(self) -> bool:
        """Is anything written down that was not returned by `news`?"""
        return any(journal.has_more() for journal in (*self._closed, *self._held))

    def _read_closed(self) -> list[Fields]:
        return [
            Fields(octets, piece.octets)
            for journal, octets in zip(self._closed, FIELD_OCTETS, strict=True)
            for piece in self._read(journal)
        ]

    def _read_held(self, patient: bool) -> list[tuple[int, Fields]]:
        ends = self._held_before if patient else [None] * len(self._held)
        self.count_age()
        return [
            (sender, Fields(octets, fields))
            for journal, asked, octets, end in zip(self._held, self._asked, FIELD_OCTETS, ends, strict=True)
            for piece in self._read(journal, end)
            for sender, fields in be_maps.by_sender(
                piece.octets, octets, asked.read_at(piece.place, len(piece.octets) // octets)
            ).items()
            if fields
        ]

    def _read(self, journal: Journal, end: int | None = None) -> Sequence[Piece]:
        if not journal.has_more():
            return ()
        pieces, lost = journal.read(end)
        self.overruns += lost
        return pieces

    def flows(self) -> Iterator[tuple[bytes, Carried]]:
        """Every four-tuple that is somebody's, a key of `flows`, with the last connection there. Raises: EdgeError."""
        for four_tuple, value in self._flows.items():
            yield four_tuple, be_maps.decode_flow(four_tuple, value)

    def walk(self) -> Iterator[Entries]:
        """The same as octets, piece by piece: what changes meanwhile may be missed. Raises: EdgeError."""
        return (Entries(keys, values) for keys, values in self._flows.pieces())

    def look_up(self, four_tuple: bytes) -> Carried | None:
        """Whose a four-tuple is, a key of `flows`. Raises: EdgeError."""
        self._flows.key[:] = four_tuple
        return be_maps.decode_flow(four_tuple, self._flows.value) if self._flows.lookup() else None

    @property
    def live(self) -> int:
        """How many connections live."""
        return self._progress.live()

    def count(self, name: str) -> int:
        """One of `counters`. Raises: EdgeError."""
        return self._maps["counts"].lookup_sum(be_maps.encode_number(be_maps.COUNTS.index(name)))

    def counters(self) -> dict[str, int]:
        """Return what the programs counted. Raises: EdgeError."""
        counts = self._maps["counts"]
        return {name: counts.lookup_sum(be_maps.encode_number(at)) for at, name in enumerate(be_maps.COUNTS)}

    def close(self) -> None:
        """Let go of everything; what is pinned goes on. Raises: EdgeError."""
        while self._attached:
            attached = self._attached.pop()
            if isinstance(attached, Link):
                attached.close()
            else:
                attached.detach()
        self._ring.close()
        for each in (self._config, self._progress, *self._closed, *self._held, *self._asked):
            each.close()
        for generation in self._generations.values():
            generation.close()
        self._generations.clear()
        self._loaded.close()

    def _configure(self, period_from: int, periods: int, until_ns: int, room: int) -> None:
        if (period_from, periods) == self._periods:
            be_maps.LEASE.pack_into(self._config.memory, be_maps.LEASE_AT, until_ns, room)
            return
        value = be_maps.encode_config(self._own, *self._marks, period_from, periods, until_ns, room)
        self._maps["config"].update(be_maps.encode_number(0), value)
        self._periods = (period_from, periods)

    def _known(self) -> list[int]:
        """Periods of which something is remembered, here or pinned by an earlier run."""
        pinned = (
            [] if self._pins is None else [int(each.name[len(_PREFIX) :]) for each in self._pins.glob(f"{_PREFIX}*")]
        )
        return sorted({*self._generations, *pinned})

    def _generation_of(self, period: int) -> BpfMap:
        if period in self._generations:
            return self._generations[period]
        place = None if self._pins is None else self._pins / f"{_PREFIX}{period}"
        number = be_maps.encode_number(period % be_maps.GENERATIONS)
        with ExitStack() as undo:
            left = None if place is None else BpfMap.pinned(place, place.name, self._generation)
            found = undo.enter_context(left or BpfMap.create(f"ran_{period % be_maps.GENERATIONS}", self._generation))
            if left is None and place is not None:
                found.pin(place)
            self._maps["ran"].update(number, be_maps.encode_number(found.fd))
            undo.pop_all()
        self._generations[period] = found  # last: until then it is tried again
        return found

    def _forget(self, period: int) -> None:
        if self._pins is not None:
            (self._pins / f"{_PREFIX}{period}").unlink(missing_ok=True)
        if period in self._generations:
            self._maps["ran"].delete(be_maps.encode_number(period % be_maps.GENERATIONS))
            self._generations.pop(period).close()


def _is_full(error: EdgeError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.E2BIG
