"""The program that impairs packets in the switch of a lab: ``python -m tcpha.lab.impairer JOB``.

It gives the verdicts of one NFQUEUE, as an `ImpairedLine` decides; a packet's second copy it sends itself, out of the
port that the first one leaves by, past the rules. Must not know which packets the rules of the switch bring it, nor
what is in them.

SIGUSR1 logs counters as one line of JSON, so does the end. SIGTERM lets everything go that is held.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from dataclasses import asdict
from random import Random
from typing import TYPE_CHECKING, Any

from tcpha.errors import EdgeError, StartError
from tcpha.eventloop import EventLoop
from tcpha.invocation import command
from tcpha.lab.impaired_line import HELD_MAX, Departure, ImpairedLine
from tcpha.lab.impairer_job import Job
from tcpha.net import clock
from tcpha.net.link import LinkSender
from tcpha.net.nfqueue import PacketQueue

if TYPE_CHECKING:
    from netfilterqueue import Packet

QUEUE_LENGTH = 4 * HELD_MAX
"""In packets: those that are held, and those that wait to be read."""

_log = logging.getLogger("tcpha.lab.impairer")


class Impairer:
    """The queue, the line and the senders, in the network namespace of the thread that makes it."""

    def __init__(self, job: Job) -> None:
        """Raises StartError if the queue or a port cannot be had."""
        self._line: ImpairedLine[Packet] = ImpairedLine(job.impairment, Random(job.impairment.seed))
        self._copies = bool(job.impairment.duplicate)
        self._senders = {
            socket.if_nametoindex(port): (LinkSender(port), bytes.fromhex(mac.replace(":", "")))
            for port, mac in job.ports.items()
        }
        self._portless = 0
        self._queue = PacketQueue(job.queue, self._on_packet, length=QUEUE_LENGTH)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then let go what is held."""
        loop = EventLoop(survives=EdgeError)  # without this program packets pass: better than with a broken one
        loop.add(self._queue.fileno(), self._queue.read)
        loop.on_signal(signal.SIGUSR1, self._log_counters)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number, loop.stop)
        print("ready", file=sys.stderr, flush=True)
        try:
            loop.run(self._on_timer)
            self._read_to_the_end()
        finally:
            self._let_go(self._line.drain())
            self._log_counters()
            loop.close()
            self._queue.close()

    def counters(self) -> dict[str, Any]:
        """Of the line; `unasked`: lost because this program was too slow; `send_errors`: copies not sent, by errno.

        Among the latter, as ENODEV, are copies of packets that leave by a port this program was not told of.
        """
        errors = {"ENODEV": self._portless} if self._portless else {}
        for sender, _ in self._senders.values():
            for name, count in sender.errors.items():
                errors[name] = errors.get(name, 0) + count
        return {
            **asdict(self._line.counters),
            "held": self._line.held,
            "unasked": self._queue.dropped_by_kernel(),
            "send_errors": errors,
        }

    def _on_packet(self, packet: Packet) -> None:
        if self._copies:
            packet.retain()  # its octets are gone when this function returns, but may be wanted later
        self._let_go(self._line.on_packet(packet, clock.now()))

    def _on_timer(self) -> float:
        now_s = clock.now()
        if self._line.deadline_s <= now_s:
            self._let_go(self._line.on_time(now_s))
        return self._line.deadline_s

    def _let_go(self, leaving: list[Departure[Packet]]) -> None:
        """Give every packet its verdict; a copy that cannot be sent keeps none from its own."""
        for packet, times in leaving:
            if not times:
                packet.drop()
                continue
            packet.accept()
            if times > 1:
                self._send_copies(packet, times - 1)

    def _send_copies(self, packet: Packet, count: int) -> None:
        port = self._senders.get(packet.physoutdev)
        if port is None:
            self._portless += count
            return
        sender, mac = port
        for _ in range(count):
            sender.send(mac, packet.get_payload())

    def _read_to_the_end(self) -> None:
        """Nothing new comes any more: the rules are gone."""
        seen = -1
        while seen != self._queue.packets:
            seen = self._queue.packets
            self._queue.read()

    def _log_counters(self) -> None:
        _log.info("counters %s", json.dumps(self.counters()))


def main(arguments: list[str]) -> int:
    """Run one job until a signal ends it."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if len(arguments) != 1:
        print(f"usage: {command('tcpha.lab.impairer')} JOB", file=sys.stderr)
        return 2
    try:
        Impairer(Job.from_json(arguments[0])).run()
    except (StartError, EdgeError, OSError, ValueError, TypeError, KeyError) as error:
        print(f"tcpha.lab.impairer: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
