"""A host's TCP with a small HTTP server behind it, for many connections, and a client of the same kind.

Modelled on Linux as far as a back end's replay meets it: embryos, challenge ACKs, RSTs for what belongs to no socket,
full backlogs, SOCK_DESTROY, SYN cookies. No windows, no congestion: what is not acknowledged is repeated.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from zlib import crc32

from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.options import Options, encode_options
from tcpha.proto.seqnum import MASK, SeqNum, seq_add, seq_diff
from tcpha.proto.tcp import ACK, FIN, PSH, RST, SYN, Segment, decode_segment, encode_segment

WINDOW = 60_000
END_OF_REQUEST = b"\r\n\r\n"
REPEAT_S = 0.2
MAX_REPEATS = 6
TIME_WAIT_S = 60.0
SIZES = 4
"""Between which a SYN cookie distinguishes (Linux, net/ipv4/syncookies.c)."""
PATIENCE_S = 60.0
"""Neither an embryo nor a connection without a whole request is kept longer."""


@dataclass(eq=False)
class Socket:
    """One connection of a host."""

    irs: SeqNum
    iss: SeqNum
    embryonic: bool = True
    received: bytes = b""
    fin_received: bool = False
    sent: bytes = b""
    closed: bool = False
    """The server has closed: a FIN stands behind what it sent."""
    closed_first: bool = False
    snd_una: int = 1
    """Relative to ISS."""
    repeats: int = 0
    repeat_at: float = 0.0
    since: float = 0.0
    """When it was first looked at."""
    waits_until: float = 0.0
    """TIME-WAIT: it closed first, and only acknowledges."""

    @property
    def rcv_nxt(self) -> SeqNum:
        return seq_add(self.irs, 1 + len(self.received) + self.fin_received)

    @property
    def end(self) -> int:
        return 1 + len(self.sent) + self.closed


class Host:
    """What runs on one back end: TCP, and a server that runs what it is asked for and closes."""

    def __init__(self, name: str, random: Random, *, cookies: bool = False) -> None:
        self.name = name
        self.ran: Counter[str] = Counter()
        """Requests by their first line, and how often each was run."""
        self.leaving: deque[bytes] = deque()
        self.resets_at_once = 0.0
        """Probability that the server, instead of answering, resets."""
        self.is_full = 0.0
        """Probability that a SYN finds no room."""
        self.accepted: Counter[tuple[ConnectionKey, SeqNum]] = Counter()
        """Connections, and the initial sequence number that each began with."""
        self._sockets: dict[ConnectionKey, Socket] = {}
        self._random = random
        self._cookies = cookies

    def received_at(self, key: ConnectionKey) -> int | None:
        found = self._sockets.get(key)
        return None if found is None else len(found.received) + found.fin_received

    def destroys(self, key: ConnectionKey, embryonic: bool) -> bool:
        found = self._sockets.get(key)
        if found is None or (found.embryonic and not embryonic):
            return False
        del self._sockets[key]
        if not found.embryonic:
            self._emit(key, seq_add(found.iss, found.end), found.rcv_nxt, RST | ACK)
        return True

    def receives(self, packet: bytes, now: float) -> None:
        segment = decode_segment(packet)
        segment.check_checksum()
        found = self._sockets.get(segment.key)
        if segment.flags & SYN:
            self._on_syn(segment, found)
        elif segment.flags & RST:
            if found is not None and segment.seg_seq == found.rcv_nxt:
                del self._sockets[segment.key]
        elif found is None:
            self._on_stray(segment, now)
        else:
            self._on_segment(segment, found, now)

    def repeats(self, now: float) -> bool:
        """Repeat what is not acknowledged in time; is there something to be read?"""
        for key, found in list(self._sockets.items()):
            found.since = found.since or now
            if now >= (found.waits_until or found.since + PATIENCE_S):
                del self._sockets[key]
                continue
            if found.embryonic or found.snd_una >= found.end or now < found.repeat_at:
                continue
            found.repeats += 1
            found.repeat_at = now + REPEAT_S * (1 << found.repeats)
            if found.repeats > MAX_REPEATS:
                del self._sockets[key]
            else:
                self._speak(key, found)
        return bool(self.leaving)

    # --- TCP

    def _on_syn(self, segment: Segment, found: Socket | None) -> None:
        key, first = segment.key, seq_add(segment.seg_seq, 1)
        if found is not None and found.waits_until and seq_diff(segment.seg_seq, found.rcv_nxt) > 0:
            del self._sockets[key]
            found = None
        if found is not None and found.embryonic and found.irs == segment.seg_seq:
            self._syn_ack(key, found.iss, first)
        elif found is not None:
            self._emit(key, seq_add(found.iss, found.end), found.rcv_nxt, ACK)
        elif self._random.random() < self.is_full:
            return
        elif self._cookies:
            self._syn_ack(key, self._cookie(key, segment.seg_seq), first)
        else:
            iss = SeqNum(self._random.getrandbits(32))
            self._sockets[key] = Socket(segment.seg_seq, iss)
            self._syn_ack(key, iss, first)

    def _on_stray(self, segment: Segment, now: float) -> None:
        irs, iss = seq_add(segment.seg_seq, -1), seq_add(segment.seg_ack, -1)
        if self._cookies and 0 <= seq_diff(iss, self._cookie_base(segment.key, irs)) < SIZES:
            self._sockets[segment.key] = made = Socket(irs, iss)
            self._on_segment(segment, made, now)
        else:
            self._emit(segment.key, segment.seg_ack, SeqNum(0), RST)

    def _on_segment(self, segment: Segment, found: Socket, now: float) -> None:
        key = segment.key
        acked = seq_diff(segment.seg_ack, found.iss)
        if not 0 < acked <= found.end:
            if found.embryonic:
                self._emit(key, segment.seg_ack, SeqNum(0), RST)
            else:
                self._emit(key, seq_add(found.iss, found.end), found.rcv_nxt, ACK)
            return
        self.accepted[key, found.irs] += found.embryonic
        found.embryonic = False
        found.snd_una = max(found.snd_una, acked)
        before = found.rcv_nxt
        self._take_octets(segment, found)
        if found.rcv_nxt != before:
            self._serve(key, found, now)
        if (segment.seg_len or seq_diff(segment.seg_seq, before) < 0) and key in self._sockets:
            self._emit(key, seq_add(found.iss, found.end), found.rcv_nxt, ACK)
        if found.fin_received and found.closed and found.snd_una >= found.end and not found.waits_until:
            if found.closed_first:
                found.waits_until = now + TIME_WAIT_S
            else:
                self._sockets.pop(key, None)

    @staticmethod
    def _take_octets(segment: Segment, found: Socket) -> None:
        offset = seq_diff(segment.seg_seq, seq_add(found.irs, 1))
        if found.fin_received or not 0 <= offset <= len(found.received):
            return
        found.received += segment.payload[len(found.received) - offset :]
        if segment.flags & FIN and offset + len(segment.payload) == len(found.received):
            found.fin_received = True

    def _serve(self, key: ConnectionKey, found: Socket, now: float) -> None:
        """Run the request that is complete, once, answer, and close; also behind a client that has closed."""
        if END_OF_REQUEST in found.received and not found.closed:
            line = " ".join(found.received.decode().split()[:2])
            self.ran[line] += 1
            # Linux acknowledges before a server has read.
            self._emit(key, seq_add(found.iss, found.end), found.rcv_nxt, ACK)
            if self._random.random() < self.resets_at_once:
                self.destroys(key, embryonic=True)
                return
            found.sent = f"{self.name} ran {line}".encode()
        if (found.sent or found.fin_received) and not found.closed:
            found.closed, found.closed_first = True, not found.fin_received
            found.repeat_at = now + REPEAT_S
            self._speak(key, found)

    def _speak(self, key: ConnectionKey, found: Socket) -> None:
        self._emit(key, seq_add(found.iss, 1), found.rcv_nxt, ACK | PSH | FIN, found.sent)

    def _syn_ack(self, key: ConnectionKey, iss: SeqNum, ack: SeqNum) -> None:
        options = encode_options(Options(mss=1460))
        self.leaving.append(encode_segment(reverse_key(key), iss, ack, SYN | ACK, WINDOW, options))

    def _emit(self, key: ConnectionKey, seq: SeqNum, ack: SeqNum, flags: int, payload: bytes = b"") -> None:
        self.leaving.append(encode_segment(reverse_key(key), seq, ack, flags, WINDOW, b"", payload))

    def _cookie(self, key: ConnectionKey, irs: SeqNum) -> SeqNum:
        """A sum of a hash, the client's ISN and the index of a size, as Linux has it; the size is anyone's."""
        return seq_add(self._cookie_base(key, irs), crc32(irs.to_bytes(4, "big")) % SIZES)

    @staticmethod
    def _cookie_base(key: ConnectionKey, irs: SeqNum) -> SeqNum:
        return seq_add(irs, crc32(bytes(key)))


class Client:
    """A client with one request. It repeats what is not acknowledged, and closes behind the answer."""

    def __init__(
        self, key: ConnectionKey, irs: int, line: str, send: Callable[[bytes], None], after: Callable[..., None]
    ) -> None:
        """`after(seconds, do)` is the clock's."""
        self.key = key
        self.line = line
        self.irs = SeqNum(irs & MASK)
        self.iss: SeqNum | None = None
        self.octets = b""
        self.outcome = ""
        """`answered`, `reset`, `given up`; empty while it waits."""
        self._request = f"{line} HTTP/1.1\r\nHost: a{END_OF_REQUEST.decode()}".encode()
        self._send = send
        self._after = after
        self._acked = 0
        self._fin_received = False
        self._repeats = 0
        self._is_gone = False

    def begin(self) -> None:
        self._speak()
        self._after(REPEAT_S, self._repeat)

    def vanishes(self) -> None:
        """Its host loses its power."""
        self._is_gone = True
        self.outcome = self.outcome or "given up"

    def resets(self) -> None:
        """Close with a RST."""
        if self.iss is not None and not self._is_gone:
            self._emit(RST, seq_add(self.irs, 1 + len(self._request)))
        self.vanishes()

    def hears(self, packet: bytes) -> None:
        if self._is_gone:
            return
        segment = decode_segment(packet)
        if self.iss is None:
            self._hears_handshake(segment)
        elif segment.flags & SYN:
            self._emit(ACK, self._snd_nxt)
        elif segment.flags & RST:
            if segment.seg_seq == self._rcv_nxt:
                self.outcome = self.outcome or "reset"
                self._is_gone = True
        else:
            self._hears_octets(segment)

    def _hears_handshake(self, segment: Segment) -> None:
        if segment.flags & (SYN | ACK) == SYN | ACK and segment.seg_ack == seq_add(self.irs, 1):
            self.iss = segment.seg_seq
            self._emit(ACK, seq_add(self.irs, 1))
            self._speak()
        elif segment.flags & ACK and not segment.flags & RST:
            self._send(encode_segment(self.key, segment.seg_ack, SeqNum(0), RST, 0))

    def _hears_octets(self, segment: Segment) -> None:
        offset = seq_diff(segment.seg_seq, self._rcv_nxt)
        before = self._rcv_nxt
        if segment.flags & ACK and 0 < seq_diff(segment.seg_ack, self.irs) <= len(self._request) + 2:
            self._acked = max(self._acked, seq_diff(segment.seg_ack, self.irs) - 1)
        if offset <= 0 and not self._fin_received and -offset <= len(self.octets):
            known = self.octets[len(self.octets) + offset :]
            assert segment.payload.startswith(known) or known.startswith(segment.payload), "two answers in one"
            self.octets += segment.payload[-offset:]
            self._fin_received = bool(segment.flags & FIN)
        if self._fin_received:
            self.outcome = self.outcome or "answered"
        if self._fin_received and self._rcv_nxt != before:
            self._speak()
        elif segment.seg_len:
            self._emit(ACK, self._snd_nxt)

    @property
    def _rcv_nxt(self) -> SeqNum:
        return seq_add(self.iss or SeqNum(0), 1 + len(self.octets) + self._fin_received)

    @property
    def _snd_nxt(self) -> SeqNum:
        return seq_add(self.irs, 1 + len(self._request) + self._fin_received)

    def _repeat(self) -> None:
        self._repeats += 1
        finished = self._fin_received and self._acked > len(self._request)
        if self._is_gone or finished:
            return
        if self._repeats > MAX_REPEATS:
            self.resets()
            return
        self._speak()
        self._after(REPEAT_S * (1 << self._repeats), self._repeat)

    def _speak(self) -> None:
        """Say what is not acknowledged yet."""
        if self.iss is None:
            options = encode_options(Options(mss=1460))
            self._send(encode_segment(self.key, self.irs, SeqNum(0), SYN, WINDOW, options))
        elif self._fin_received:
            self._emit(FIN | ACK, seq_add(self.irs, 1 + len(self._request)))
        elif self._acked < len(self._request):
            self._emit(ACK | PSH, seq_add(self.irs, 1), self._request)
        else:
            self._emit(ACK, self._snd_nxt)

    def _emit(self, flags: int, seq: SeqNum, payload: bytes = b"") -> None:
        ack = SeqNum(0) if flags == RST else self._rcv_nxt
        self._send(encode_segment(self.key, seq, ack, flags, WINDOW, b"", payload))
