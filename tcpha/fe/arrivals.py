"""Which of a client's numbers have arrived, where nobody keeps the octets (RFC 9293, 3.10.7.4; RFC 2018, 4).

Knows sequence numbers only. Without it a client whose segment is lost in a long upload hears nothing but the same
acknowledgement: where SACK was agreed on Linux counts no such repetition, and waits for its timer once a loss.
"""

from __future__ import annotations

from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff

MOST_RUNS = 16
"""Runs kept behind gaps; the client repeats what is forgotten."""


class Arrivals:
    """What has arrived from `rcv_nxt` on. A FIN has a number, too."""

    __slots__ = ("_fin_end", "_runs", "rcv_nxt")

    def __init__(self, rcv_nxt: SeqNum, fin: bool) -> None:
        """`fin`: the number before `rcv_nxt` was a FIN's."""
        self.rcv_nxt = rcv_nxt
        """RCV.NXT."""
        self._runs: list[tuple[SeqNum, SeqNum]] = []  # the one that grew last stands first
        self._fin_end = rcv_nxt if fin else None

    @property
    def fin(self) -> bool:
        """The client's FIN is in order: nothing follows."""
        return self._fin_end == self.rcv_nxt

    def add(self, first: SeqNum, end: SeqNum, fin: bool) -> None:
        """Take in a segment's numbers from `first` to before `end`; `fin`: the last of them is a FIN's."""
        if fin:
            self._fin_end = end
        begin, stop = max(seq_diff(first, self.rcv_nxt), 0), seq_diff(end, self.rcv_nxt)
        if stop <= 0:
            return
        apart = []
        for run in self._runs:
            run_begin, run_stop = (seq_diff(edge, self.rcv_nxt) for edge in run)
            if run_stop < begin or stop < run_begin:
                apart.append(run)
            else:
                begin, stop = min(begin, run_begin), max(stop, run_stop)
        base = self.rcv_nxt
        if begin == 0:
            self.rcv_nxt = seq_add(base, stop)
            self._runs = apart
        elif len(apart) < MOST_RUNS:
            self._runs = [(seq_add(base, begin), seq_add(base, stop)), *apart]

    def blocks(self) -> list[tuple[SeqNum, SeqNum]]:
        """Return the runs behind gaps, the latest first: first number and the one behind the last."""
        return list(self._runs)
