"""Request octets put together from segments in any order, before a back end is chosen (RFC 9293, 3.10.7.4).

Knows sequence numbers and octets, nothing of what they mean.

Deviation: an urgent pointer is ignored, as RFC 6093, 6 asks applications to do: the octet stays in its place. A Linux
server without SO_OOBINLINE takes it out, and reads another request than the one by which its back end was chosen.

Deviation: what overlaps is put together here, and no D-SACK tells which octets came twice (RFC 2883 leaves that open);
only a segment that brings nothing new is reported so.
"""

from __future__ import annotations

from msgspec import Struct

from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff

MAX_EARLY_PIECES = 64
"""Pieces kept that arrived before what precedes them; the client repeats what is dropped."""


class Assembly(Struct, eq=False, gc=False):
    """The octets of one connection from `start` on, as far as they have arrived without a gap."""

    start: SeqNum
    window_octets: int
    """What lies further than that behind `start` is not kept."""
    octets: bytes = b""
    """Made with what begins at `start`, as nearly every request does whole; no more than the window."""
    fin: bool = False
    """The client's FIN is in order, too: nothing follows."""
    _early: dict[int, tuple[bytes, bool]] = {}

    @property
    def rcv_nxt(self) -> SeqNum:
        """RCV.NXT: the next number expected, a FIN in order counted."""
        return seq_add(self.start, len(self.octets) + self.fin)

    def add(self, seq: SeqNum, payload: bytes, fin: bool) -> bool:
        """Take in a segment's octets (what lies outside the window is cut off); return whether RCV.NXT advanced."""
        offset = seq_diff(seq, self.start)
        if offset < 0:
            fin = fin and offset + len(payload) >= 0
            payload, offset = payload[-offset:], 0
        room = self.window_octets - offset
        if room < len(payload):
            payload, fin = payload[: max(room, 0)], False
        have = len(self.octets)
        if offset > have:
            if (payload or fin) and self._has_room(len(payload)):
                known = self._early.get(offset)
                if known is None or (len(known[0]), known[1]) < (len(payload), fin):
                    self._early[offset] = (payload, fin)
            return False
        advanced = self._append(offset, payload, fin)
        return self._take_early() or advanced

    def _has_room(self, octets: int) -> bool:
        """May another early piece be kept? All of them together hold no more than the window, overlaps or not."""
        if len(self._early) >= MAX_EARLY_PIECES:
            return False
        return sum(len(piece) for piece, _ in self._early.values()) + octets <= self.window_octets

    def discard(self) -> None:
        """Let go of all octets; only `fin` is still of use."""
        self.octets = b""
        self._early.clear()

    @property
    def has_more(self) -> bool:
        """Did anything arrive besides `octets`: a FIN, or pieces behind a gap?"""
        return self.fin or bool(self._early)

    def early_pieces(self) -> list[tuple[SeqNum, bytes, bool]]:
        """Return what arrived behind a gap, in order, each with whether a FIN ends it."""
        return [(seq_add(self.start, offset), piece, fin) for offset, (piece, fin) in sorted(self._early.items())]

    def blocks(self) -> list[tuple[SeqNum, SeqNum]]:
        """Return the first number of each run of octets behind a gap and the number behind it, in order."""
        runs: list[list[int]] = []
        for offset, (piece, fin) in sorted(self._early.items()):
            end = offset + len(piece) + fin
            if runs and offset <= runs[-1][1]:
                runs[-1][1] = max(runs[-1][1], end)
            else:
                runs.append([offset, end])
        return [(seq_add(self.start, begin), seq_add(self.start, end)) for begin, end in runs]

    def _append(self, offset: int, payload: bytes, fin: bool) -> bool:
        if self.fin or offset > len(self.octets):
            return False
        news = payload[len(self.octets) - offset :]
        self.octets += news
        ends_here = fin and offset + len(payload) == len(self.octets)
        self.fin = ends_here
        return bool(news) or ends_here

    def _take_early(self) -> bool:
        advanced = False
        for offset in sorted(self._early):
            if offset > len(self.octets):
                break
            advanced |= self._append(offset, *self._early.pop(offset))
        return advanced
