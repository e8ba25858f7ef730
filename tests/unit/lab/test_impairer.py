"""The program that impairs packets, with a queue and ports that are not the kernel's: every packet gets its verdict."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tcpha.lab import impairer
from tcpha.lab.impairer import Impairer
from tcpha.lab.impairer_job import Job
from tcpha.lab.impairment import Impairment

PORT, ELSEWHERE = 7, 8


class StubPacket:
    """Counts its verdicts."""

    def __init__(self, physoutdev: int = PORT) -> None:
        self.physoutdev = physoutdev
        self.verdicts: list[str] = []

    def accept(self) -> None:
        self.verdicts.append("accept")

    def drop(self) -> None:
        self.verdicts.append("drop")

    def retain(self) -> None:
        """Its octets stay."""

    def get_payload(self) -> bytes:
        return b"octets"


class StubQueue:
    """Holds nothing; its descriptor is never readable."""

    def __init__(self, number: int, on_packet: Callable[[Any], None], *, length: int) -> None:
        self.on_packet = on_packet
        self.packets = 0
        self.fault: Exception | None = None
        self._ends = socket.socketpair()

    def fileno(self) -> int:
        return self._ends[0].fileno()

    def read(self) -> None:
        if self.fault is not None:
            raise self.fault

    def wake(self) -> None:
        self._ends[1].send(b"x")

    def dropped_by_kernel(self) -> int:
        return 0

    def close(self) -> None:
        for end in self._ends:
            end.close()


class StubSender:
    def __init__(self, port: str) -> None:
        self.errors: dict[str, int] = {}
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, mac: bytes, packet: bytes) -> None:
        self.sent.append((mac, packet))


class Bench:
    """A program, its queue and what leaves by its port."""

    def __init__(self, impairment: Impairment) -> None:
        self.program = Impairer(Job(3, {"port": "02:00:00:00:00:01"}, impairment))
        queue, senders = self.program._queue, self.program._senders
        assert isinstance(queue, StubQueue)
        sender: Any = senders[PORT][0]
        assert isinstance(sender, StubSender)
        self.queue, self.sender = queue, sender

    def receive(self, *packets: StubPacket) -> None:
        for packet in packets:
            self.queue.on_packet(packet)


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[Impairment], Bench]:
    monkeypatch.setattr(impairer, "PacketQueue", StubQueue)
    monkeypatch.setattr(impairer, "LinkSender", StubSender)
    monkeypatch.setattr(socket, "if_nametoindex", lambda _name: PORT)
    return Bench


def test_packet_is_doubled_its_copy_leaves_by_its_port(make_bench: Callable[[Impairment], Bench]) -> None:
    bench = make_bench(Impairment(duplicate=1.0))
    packet = StubPacket()
    bench.receive(packet)
    assert packet.verdicts == ["accept"]
    assert bench.sender.sent == [(b"\x02\x00\x00\x00\x00\x01", b"octets")]


def test_held_packet_leaves_by_a_port_nobody_knows_all_behind_it_get_their_verdicts(
    make_bench: Callable[[Impairment], Bench],
) -> None:
    bench = make_bench(Impairment(duplicate=1.0, delay_s=5.0))
    packets = [StubPacket(), StubPacket(ELSEWHERE), StubPacket()]
    bench.receive(*packets)
    bench.program._let_go(bench.program._line.drain())
    assert [packet.verdicts for packet in packets] == [["accept"]] * 3
    assert len(bench.sender.sent) == 2
    assert bench.program.counters()["send_errors"] == {"ENODEV": 1}


def test_program_fails_while_packets_are_held_they_get_their_verdicts(
    make_bench: Callable[[Impairment], Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(Impairment(delay_s=5.0))
    packets = [StubPacket(), StubPacket()]
    bench.receive(*packets)
    bench.queue.fault = OSError("the socket fails")
    bench.queue.wake()
    with caplog.at_level(logging.INFO), pytest.raises(OSError, match="the socket fails"):
        bench.program.run()
    assert [packet.verdicts for packet in packets] == [["accept"]] * 2
    assert json.loads(caplog.messages[-1].removeprefix("counters "))["held"] == 0
