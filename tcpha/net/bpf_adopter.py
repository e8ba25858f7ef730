"""The back end's programs in the kernel: loaded, told what they must know, attached, and asked what they did.

Knows what lies in their maps (tcpha.kernel.be_maps), not what the agent decides. The order of steps: open, `renew`
(which periods), `set_peer` (who may hand over), `set_targets` (what for), `attach`. Without a call of `renew` for a
minute the programs adopt nothing any more, since no cookie is of a period they know: an agent that hangs takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tcpha.errors import EdgeError
from tcpha.kernel import be_maps
from tcpha.kernel.be_maps import Adoption
from tcpha.net import sysctl
from tcpha.net.bpf import BpfMap, MapShape, bpffs_of
from tcpha.net.bpf_attach import Filter, Link, attach
from tcpha.net.bpf_object import Loaded, ObjectFile, kernel_function, load
from tcpha.net.bpf_ring import RingReader
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Identity

PROGRAMS = Path(__file__).parent.parent / "kernel" / "be.bpf.o"
PERIODS_BEFORE, PERIODS_AFTER = 2, 1
"""Around the present one: cookies of other periods no front end accepts."""

_PREFIX = "ran-"
# What the host must allow before the kernel makes sockets of other hosts' handshakes.
_SETTINGS = {
    "ipv4/tcp_syncookies": ("1", "2"),
    "ipv4/tcp_timestamps": ("1", "2"),
    "ipv4/tcp_sack": ("1",),
    "ipv4/tcp_window_scaling": ("1",),
    "ipv4/tcp_fwmark_accept": ("1",),
}


def obstacle(pins: Path | None = None) -> str | None:
    """Why this host cannot run the programs, in words for a person; None if nothing speaks against it.

    What the kernel says when they are loaded comes on top of that.
    """
    try:
        for name in sorted(ObjectFile(PROGRAMS).kernel_functions()):
            kernel_function(name)
        for name, wanted in _SETTINGS.items():
            if (value := sysctl.read(name)) not in wanted:
                return f"net.{name.replace('/', '.')} is {value}, not {' or '.join(wanted)}"
    except EdgeError as error:
        return str(error)
    if pins is not None and bpffs_of(pins) is None:
        return f"{pins} is in no bpf file system"
    return None


class Adopter:
    """The programs be_ingress, be_egress and be_claim, and their maps."""

    def __init__(
        self, own: tuple[bytes, int], keyring: Keyring, *, mark: int, retry_mark: int, pins: Path | None = None
    ):
        """Load them. `own`: packed address and port of the handoff channel here. `pins`: a directory in a bpf file
        system; what ran is found there again after a restart. Raises: EdgeError.
        """
        self._own = be_maps.encode_endpoint(*own)
        self._marks = (mark, retry_mark)
        self._pins = pins
        self._attached: list[Link | Filter] = []
        self._generations: dict[int, BpfMap] = {}
        if pins is not None:
            pins.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as undo:
            self._loaded: Loaded = undo.enter_context(load(PROGRAMS, pins=pins))
            self._maps = self._loaded.maps
            inner = next(each.inner for each in ObjectFile(PROGRAMS).maps if each.name == "ran")
            if inner is None:
                raise EdgeError(f"{PROGRAMS}: ran is no map of maps")
            self._generation: MapShape = inner
            self._ring = RingReader(self._maps["events"])
            self.hold()
            for index, entry in enumerate(be_maps.encode_keys(keyring)):
                self._maps["keys"].update(be_maps.encode_number(index), entry)
            undo.pop_all()

    # --- what the programs must know

    def renew(self, period: int, floor: int = -1) -> None:
        """Go on: cookies of the periods around `period` are accepted, none up to `floor`. Raises: EdgeError."""
        wanted = range(period - PERIODS_BEFORE, period + PERIODS_AFTER + 1)
        for old in [each for each in self._known() if each not in range(wanted.start - 1, wanted.stop + 1)]:
            self._forget(old)
        for each in range(wanted.start - 1, wanted.stop + 1):
            self._generation_of(each)
        first = max(wanted.start, floor + 1)
        self._configure(first, max(wanted.stop - first, 0))

    def hold(self) -> None:
        """Adopt nothing until `renew` is called; what is adopted goes on. Raises: EdgeError."""
        self._configure(0, 0)

    def set_peer(self, address: bytes, port: int, sender: int, epoch: int, table: int) -> None:
        """Messages of this front end are accepted under this epoch.

        `table`: one that no peer has, and not that of the epoch before: while this is replaced, a program may still
        write there. Raises: EdgeError.
        """
        self._maps["peers"].update(be_maps.encode_endpoint(address, port), be_maps.encode_peer(epoch, table, sender))

    def forget_peer(self, address: bytes, port: int) -> None:
        """Accept nothing of it any more. Raises: EdgeError."""
        self._maps["peers"].delete(be_maps.encode_endpoint(address, port))

    def set_targets(self, targets: Iterable[tuple[bytes, int]]) -> None:
        """Adopt for these virtual addresses and ports, and for no others. Raises: EdgeError."""
        wanted = {be_maps.encode_endpoint(address, port) for address, port in targets}
        for old in set(self._maps["targets"].keys()) - wanted:
            self._maps["targets"].delete(old)
        for each in wanted:
            self._maps["targets"].update(each, be_maps.encode_number(1))

    def attach(self, iface: str) -> None:
        """Begin. Raises: EdgeError, with nothing attached."""
        try:
            self._attached.append(attach(self._loaded.programs["be_egress"], iface, "egress"))
            self._attached.append(attach(self._loaded.programs["be_ingress"], iface, "ingress"))
        except EdgeError:
            self.detach()
            raise

    def detach(self) -> None:
        """End; sockets that were made stay, and their packets go where they went before. Raises: EdgeError."""
        while self._attached:
            self._attached.pop().detach()

    # --- who runs what

    def claim_message(self, table: int, epoch: int, sequence: int) -> bool:
        """May the agent run this HANDOFF? Then no program does, nor a replay of it. Raises: EdgeError."""
        program = self._loaded.programs["be_claim"]
        return be_maps.decode_claim(program.run(context=be_maps.encode_claim(table, epoch, sequence)).context)

    def claim_identity(self, identity: Identity, period: int) -> bool:
        """Is the connection the agent's: to run, to refuse, or to remember? False: a program had it first.

        `period`: that of its cookie. Of one that no front end accepts any more nothing is kept. Raises: EdgeError.
        """
        if period not in self._generations:
            return True
        generation, name = self._generations[period], be_maps.encode_name(identity)
        if generation.insert(name, be_maps.encode_number(be_maps.AGENT)):
            return True
        known = generation.lookup(name)
        return known is not None and be_maps.decode_number(known) == be_maps.AGENT

    def forget_flow(self, key: ConnectionKey) -> bool:
        """A connection is over; was it known? Raises: EdgeError."""
        return self._maps["flows"].delete(be_maps.encode_tuple(key))

    # --- what they did

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when connections were adopted."""
        return self._ring.fileno()

    def adoptions(self, limit: int = 256) -> list[Adoption]:
        """Return connections whose sockets have spoken for the first time, or again after a repeat."""
        return [be_maps.decode_event(record) for record in self._ring.read(limit)]

    def flows(self) -> Iterator[Identity]:
        """Every connection that was adopted and not forgotten. Raises: EdgeError."""
        for four_tuple, value in self._maps["flows"].items():
            yield be_maps.decode_flow(four_tuple, value)

    def counters(self) -> dict[str, int]:
        """Return what the programs counted. Raises: EdgeError."""
        counts = self._maps["counts"]
        return {name: counts.lookup_sum(be_maps.encode_number(at)) for at, name in enumerate(be_maps.COUNTS)}

    def close(self) -> None:
        """Detach and let go of everything; pins stay. Raises: EdgeError."""
        self.detach()
        self._ring.close()
        for generation in self._generations.values():
            generation.close()
        self._generations.clear()
        self._loaded.close()

    def _configure(self, period_from: int, periods: int) -> None:
        value = be_maps.encode_config(self._own, *self._marks, period_from, periods)
        self._maps["config"].update(be_maps.encode_number(0), value)

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
        found = None if place is None else BpfMap.pinned(place, place.name, self._generation)
        if found is None:
            found = BpfMap.create(f"ran_{period % be_maps.GENERATIONS}", self._generation)
            if place is not None:
                found.pin(place)
        self._generations[period] = found
        self._maps["ran"].update(be_maps.encode_number(period % be_maps.GENERATIONS), be_maps.encode_number(found.fd))
        return found

    def _forget(self, period: int) -> None:
        if self._pins is not None:
            (self._pins / f"{_PREFIX}{period}").unlink(missing_ok=True)
        if (old := self._generations.pop(period, None)) is not None:
            self._maps["ran"].delete(be_maps.encode_number(period % be_maps.GENERATIONS))
            old.close()
