"""A host's TCP beside a back end: what is injected reaches it at once, what it says waits until the back end reads it.

Modelled on Linux as far as a replay can tell: SYN on each kind of socket, challenge acknowledgements (RFC 5961), RST
for what belongs to no socket, SOCK_DESTROY, a full accept queue, SYN cookies of its own. One socket per four-tuple. The
twin of tests/packet/be_host.py, on the package's own codec: a fuzzer has no time for another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Identity
from tcpha.proto.options import Options, encode_options, encode_timestamps
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_lt
from tcpha.proto.tcp import ACK, FIN, PSH, RST, SYN, Segment, encode_segment

ISS_STEP = 0x10000003
TSVAL = 0xFFFFFFF0
OLDEST_ACK_OCTETS = 1 << 17


class State(Enum):
    """How far a socket is."""

    EMBRYONIC = auto()
    ESTABLISHED = auto()
    TIME_WAIT = auto()


@dataclass(eq=False)
class Socket:
    """A socket that holds a four-tuple."""

    identity: Identity | None
    """The connection that was being rebuilt when it came to be."""
    irs: SeqNum
    iss: SeqNum
    stamps: bool
    state: State = State.EMBRYONIC
    tsval: int = TSVAL
    tsecr: int = 0
    rcv_nxt: SeqNum = field(init=False)
    snd_nxt: SeqNum = field(init=False)
    received: bytearray = field(default_factory=bytearray)
    is_closed: bool = False
    """The server has sent its FIN."""
    has_fin: bool = False
    """The client's FIN has come: nothing is read behind it."""

    def __post_init__(self) -> None:
        self.rcv_nxt, self.snd_nxt = seq_add(self.irs, 1), seq_add(self.iss, 1)


class Host:
    """The sockets of one host."""

    def __init__(self, identity_of: Callable[[ConnectionKey], Identity | None]) -> None:
        self.sockets: dict[ConnectionKey, Socket] = {}
        self.queue: deque[bytes] = deque()
        """What leaves and was not read yet."""
        self.listens = True
        self.drops_syns = False
        self.accepts = True
        """Is there room in the accept queue? If not, what completes a handshake is dropped."""
        self.has_cookies = False
        """It answers SYNs with cookies of its own: without timestamps it knows neither window scale nor SACK."""
        self.ran: list[Socket] = []
        """Sockets whose server got octets."""
        self.acknowledged: dict[Identity, SeqNum] = {}
        """RCV.NXT of the latest socket of each connection."""
        self.aborted: set[Identity] = set()
        """Connections that the server reset: if that is lost as well, nobody can know that it had read anything."""
        self._identity_of = identity_of
        self._iss = SeqNum(0x7FFFFF00)

    # --- diagnostics

    def destroy(self, key: ConnectionKey, embryonic: bool) -> bool:
        found = self.sockets.get(key)
        if found is None or (found.state is State.EMBRYONIC and not embryonic):
            return False
        del self.sockets[key]
        if found.state is State.ESTABLISHED:
            self._emit(key, found, RST | ACK)
        return True

    def received_at(self, key: ConnectionKey) -> int | None:
        found = self.sockets.get(key)
        if found is None:
            return None
        return len(found.received) + found.has_fin if found.state is State.ESTABLISHED else 0

    # --- the server

    def writes(self, key: ConnectionKey, octets: int) -> None:
        found = self.sockets.get(key)
        if found is not None and found.state is State.ESTABLISHED and not found.is_closed:
            self._emit(key, found, PSH | ACK, bytes(octets))
            found.snd_nxt = seq_add(found.snd_nxt, octets)

    def closes(self, key: ConnectionKey) -> None:
        found = self.sockets.get(key)
        if found is not None and found.state is State.ESTABLISHED and not found.is_closed:
            self._emit(key, found, FIN | ACK)
            found.snd_nxt, found.is_closed = seq_add(found.snd_nxt, 1), True

    def aborts(self, key: ConnectionKey) -> None:
        found = self.sockets.get(key)
        if found is not None and found.state is State.ESTABLISHED:
            self._emit(key, found, RST | ACK)
            del self.sockets[key]
            if found.identity is not None:
                self.aborted.add(found.identity)

    def forgets(self, key: ConnectionKey) -> None:
        """A socket ends by itself: TIME-WAIT is over, a SYN-ACK was never answered."""
        found = self.sockets.get(key)
        if found is not None and found.state is not State.ESTABLISHED:
            del self.sockets[key]

    def waits(self, key: ConnectionKey) -> None:
        """An established connection, closed by both, goes into TIME-WAIT."""
        found = self.sockets.get(key)
        if found is not None and found.state is State.ESTABLISHED:
            found.state = State.TIME_WAIT

    # --- packets

    def receives(self, segment: Segment) -> None:
        found = self.sockets.get(segment.key)
        if segment.flags & RST:
            if found is not None and segment.seg_seq == found.rcv_nxt:
                del self.sockets[segment.key]
        elif segment.flags & SYN:
            self._on_syn(segment, found)
        elif not segment.flags & ACK:
            return
        elif found is None or (found.state is State.EMBRYONIC and segment.seg_ack != seq_add(found.iss, 1)):
            options = b""
            self.queue.append(
                encode_segment(reverse_key(segment.key), segment.seg_ack, SeqNum(0), RST, 0, options)
            )  # fmt: skip
        else:
            self._on_segment(segment, found)

    def _on_syn(self, segment: Segment, found: Socket | None) -> None:
        if found is not None and found.state is State.TIME_WAIT and seq_lt(found.rcv_nxt, segment.seg_seq):
            found = None
        if found is not None and found.state is State.EMBRYONIC and found.irs == segment.seg_seq:
            self._emit_syn_ack(segment.key, found, segment)
        elif found is not None:
            self._emit(segment.key, found, ACK)
        elif not self.listens:
            self.queue.append(
                encode_segment(reverse_key(segment.key), SeqNum(0), seq_add(segment.seg_seq, 1), RST | ACK, 0)
            )  # fmt: skip
        elif not self.drops_syns:
            self._iss = seq_add(self._iss, ISS_STEP)
            stamps = segment.timestamps
            made = Socket(self._identity_of(segment.key), segment.seg_seq, self._iss, stamps is not None)
            made.tsecr = 0 if stamps is None else stamps[0]
            self.sockets[segment.key] = made
            self._emit_syn_ack(segment.key, made, segment)

    def _on_segment(self, segment: Segment, found: Socket) -> None:
        if found.state is State.EMBRYONIC:
            if not self.accepts:
                return
            found.state = State.ESTABLISHED
        stamps = segment.timestamps
        if stamps is not None and found.stamps:
            found.tsecr = stamps[0]
        at, acknowledged = seq_diff(segment.seg_seq, found.rcv_nxt), seq_diff(segment.seg_ack, found.snd_nxt)
        # RFC 5961, 5.2: what acknowledges something long past is of another connection.
        is_of_other = acknowledged > 0 or acknowledged < -OLDEST_ACK_OCTETS
        if is_of_other or found.state is State.TIME_WAIT or at > 0 or found.has_fin:
            self._emit(segment.key, found, ACK)
            return
        news = segment.payload[-at:] if at else segment.payload
        if news:
            if not found.received:
                self.ran.append(found)
            found.received += news
            found.rcv_nxt = seq_add(found.rcv_nxt, len(news))
        if segment.flags & FIN and at + segment.payload_octets >= 0:
            found.rcv_nxt = seq_add(seq_add(segment.seg_seq, segment.payload_octets), 1)
            found.has_fin = True
        if found.identity is not None:
            self.acknowledged[found.identity] = found.rcv_nxt
        if segment.seg_len:
            self._emit(segment.key, found, ACK)

    def _emit(self, key: ConnectionKey, found: Socket, flags: int, payload: bytes = b"") -> None:
        options = b""
        if found.stamps and not flags & RST:
            found.tsval = (found.tsval + 1) & 0xFFFFFFFF
            options = encode_timestamps(found.tsval, found.tsecr)
        self.queue.append(
            encode_segment(reverse_key(key), found.snd_nxt, found.rcv_nxt, flags, 500, options, payload)
        )  # fmt: skip

    def _emit_syn_ack(self, key: ConnectionKey, found: Socket, syn: Segment) -> None:
        offered = syn.options
        plain = self.has_cookies and not found.stamps
        options = Options(
            1460,
            None if plain or offered.window_scale is None else 7,
            offered.sack_permitted and not plain,
            (found.tsval, found.tsecr) if found.stamps else None,
        )
        self.queue.append(
            encode_segment(
                reverse_key(key), found.iss, seq_add(found.irs, 1), SYN | ACK, 64240, encode_options(options)
            )
        )  # fmt: skip
