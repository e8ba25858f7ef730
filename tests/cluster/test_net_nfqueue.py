"""PacketQueue against the kernel's NFQUEUE: whole packets, verdicts, faults."""

from __future__ import annotations

import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from netfilterqueue import Packet

from tcpha.errors import StartError
from tcpha.net.nfqueue import PacketQueue
from tests.unit.net.namespaces import DEADLINE_S, Host, pair, pump, until

pytestmark = pytest.mark.cluster

PORT = 8080
NUMBER = 700


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


@pytest.fixture
def wide_hosts() -> Iterator[tuple[Host, Host]]:
    """Hosts on a link that carries packets of nearly 64 KiB."""
    with pair(mtu=65535) as both:
        yield both


def queue_arriving_udp(host: Host) -> None:
    rule = f"-A PREROUTING -p udp --dport {PORT} -j NFQUEUE --queue-num {NUMBER}"
    for family in (4, 6):
        host.restore_rules(family, "*raw", rule, "COMMIT")


def queue_leaving_tcp(host: Host) -> None:
    rule = f"-A POSTROUTING -p tcp --sport {PORT} -j NFQUEUE --queue-num {NUMBER}"
    for family in (4, 6):
        host.restore_rules(family, "*mangle", rule, "COMMIT")


def waiting_in_kernel(host: Host) -> int:
    """Packets that wait for a verdict, in the only queue of the host."""
    return int(host.run("cat /proc/thread-self/net/netfilter/nfnetlink_queue").split()[2])


def udp(host: Host, family: socket.AddressFamily, *, bound: bool) -> socket.socket:
    addr = host.addr4 if family == socket.AF_INET else host.addr6
    with host.inside():
        made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    if bound:
        made.bind((str(addr), PORT))
    return made


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("octets", [1, 4097, 60000])
def test_plain_queue_large_packet_arrives_whole(
    wide_hosts: tuple[Host, Host], family: socket.AddressFamily, octets: int
) -> None:
    client, server = wide_hosts
    queue_arriving_udp(server)
    sent = random.randbytes(octets)
    seen: list[bytes] = []

    def on_packet(packet: Packet) -> None:
        seen.append(packet.get_payload())
        assert packet.indev == index
        packet.accept()

    with server.inside():
        index = socket.if_nametoindex(server.iface)
        queue = PacketQueue(NUMBER, on_packet, length=100)
    target = str(server.addr4 if family == socket.AF_INET else server.addr6)
    with closing(queue), udp(client, family, bound=False) as source, udp(server, family, bound=True) as sink:
        source.sendto(sent, (target, PORT))
        pump(lambda: bool(seen), [(queue, queue.read)])
        until(lambda: bool(select.select([sink], (), (), 0)[0]), sink)
        assert sink.recv(65536) == sent
    header_octets = (20 if family == socket.AF_INET else 40) + 8
    assert seen[0][header_octets:] == sent
    assert (queue.packets, queue.callback_errors) == (1, 0)


def test_long_then_short_packet_each_is_read_once(wide_hosts: tuple[Host, Host]) -> None:
    client, server = wide_hosts
    queue_arriving_udp(server)
    lengths: list[int] = []

    def on_packet(packet: Packet) -> None:
        lengths.append(packet.get_payload_len() - 28)
        packet.drop()

    with server.inside():
        queue = PacketQueue(NUMBER, on_packet, length=100)
    # Every remainder of the message's length modulo 4, always behind a long packet's left-overs.
    wanted = [n for short in range(1, 9) for n in (50000, short)]
    with closing(queue), udp(client, socket.AF_INET, bound=False) as source:
        for octets in wanted:
            source.sendto(bytes([0xEE]) * octets, (str(server.addr4), PORT))
            seen = len(lengths)
            pump(lambda seen=seen: len(lengths) > seen, [(queue, queue.read)])  # type: ignore[misc]
    assert lengths == wanted
    assert queue.packets == len(wanted)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("rewrite", [False, True])
def test_gso_queue_download_is_whole_in_packets_over_60_kb(
    hosts: tuple[Host, Host], family: socket.AddressFamily, rewrite: bool
) -> None:
    client, server = hosts
    queue_leaving_tcp(server)
    sent = random.randbytes(8 << 20)
    largest = 0
    tcp_at = 20 if family == socket.AF_INET else 40

    def on_packet(packet: Packet) -> None:
        nonlocal largest
        payload = packet.get_payload()
        largest = max(largest, len(payload))
        if rewrite and len(payload) > 4096:
            # A verdict that carries the whole packet back: the data inverted, the checksum left to the kernel.
            data_at = tcp_at + (payload[tcp_at + 12] >> 4) * 4
            packet.set_payload(payload[:data_at] + bytes(octet ^ 0xFF for octet in payload[data_at:]))
            inverted.append(len(payload) - data_at)
        packet.accept()

    inverted: list[int] = []
    with server.inside():
        queue = PacketQueue(NUMBER, on_packet, length=1000, gso=True)
        listener = socket.create_server((str(server.addr4 if tcp_at == 20 else server.addr6), PORT), family=family)
    with client.inside():
        reader = socket.socket(family, socket.SOCK_STREAM)
    with closing(queue), listener, reader:
        received = download(queue, listener, reader, sent)
    assert largest > 60000
    assert len(received) == len(sent)
    if rewrite:
        changed = sum(a != b for a, b in zip(received, sent, strict=True))
        assert changed == sum(inverted)
        assert all(a in (b, b ^ 0xFF) for a, b in zip(received, sent, strict=True))
    else:
        assert received == sent


def download(queue: PacketQueue, listener: socket.socket, reader: socket.socket, octets: bytes) -> bytes:
    """Carry `octets` from a connection of the listener to the reader, reading the queue meanwhile."""
    reader.setblocking(False)
    reader.connect_ex(listener.getsockname()[:2])
    pump(lambda: bool(select.select([listener], (), (), 0)[0]), [(queue, queue.read)])
    writer, _ = listener.accept()
    received = bytearray()
    pending = memoryview(octets)
    end_s = time.monotonic() + 3 * DEADLINE_S
    with writer:
        writer.setblocking(False)
        while len(received) < len(octets):
            assert time.monotonic() < end_s, f"{len(received)} of {len(octets)} octets arrived"
            readable, writable, _ = select.select(
                [queue.fileno(), reader.fileno()], [writer] if pending else [], [], 0.1
            )
            if writable:
                pending = pending[writer.send(pending[: 1 << 20]) :]
            if queue.fileno() in readable:
                queue.read()
            if reader.fileno() in readable:
                received += reader.recv(1 << 20)
    return bytes(received)


def test_callback_that_fails_packet_is_dropped_and_reading_goes_on(
    hosts: tuple[Host, Host], caplog: pytest.LogCaptureFixture
) -> None:
    client, server = hosts
    queue_arriving_udp(server)

    def on_packet(packet: Packet) -> None:
        if packet.get_payload()[28:] == b"late":
            packet.accept()
            raise ValueError("after the verdict")
        if packet.get_payload()[28:] == b"bad":
            raise ValueError("before the verdict")
        packet.accept()

    with server.inside():
        queue = PacketQueue(NUMBER, on_packet, length=2)
    with (
        closing(queue),
        udp(client, socket.AF_INET, bound=False) as source,
        udp(server, socket.AF_INET, bound=True) as sink,
    ):
        # More failures than the queue holds: one packet left without a verdict would fill it.
        for octets in [b"bad"] * 5 + [b"late", b"good"]:
            before = queue.packets
            source.sendto(octets, (str(server.addr4), PORT))
            pump(lambda before=before: queue.packets > before, [(queue, queue.read)])  # type: ignore[misc]
        until(lambda: bool(select.select([sink], (), (), 0)[0]), sink)
        assert [sink.recv(100), sink.recv(100)] == [b"late", b"good"]
        with server.inside():
            assert queue.dropped_by_kernel() == 0
    assert queue.callback_errors == 6
    assert len(caplog.records) == 1


def test_callback_that_ends_the_process_packet_is_dropped_first(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    queue_arriving_udp(server)

    def on_packet(packet: Packet) -> None:
        raise SystemExit

    with server.inside():
        queue = PacketQueue(NUMBER, on_packet, length=10)
    with closing(queue), udp(client, socket.AF_INET, bound=False) as source:
        source.sendto(b"x", (str(server.addr4), PORT))
        until(lambda: bool(select.select([queue], (), (), 0)[0]), queue)
        with pytest.raises(SystemExit):
            queue.read()
        assert waiting_in_kernel(server) == 0
    assert queue.callback_errors == 0


def test_read_burst_leaves_the_rest_for_the_next_read(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    queue_arriving_udp(server)
    with server.inside():
        queue = PacketQueue(NUMBER, Packet.drop, length=100)
    with closing(queue), udp(client, socket.AF_INET, bound=False) as source:
        for _ in range(10):
            source.sendto(b"x", (str(server.addr4), PORT))
        until(lambda: waiting_in_kernel(server) == 10)
        counts = []
        for _ in range(4):
            queue.read(burst=4)
            counts.append(queue.packets)
    assert counts == [4, 8, 10, 10]


def test_drop_after_burst_drops_what_has_no_verdict_and_nothing_else(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    queue_arriving_udp(server)

    def on_packet(packet: Packet) -> None:
        if packet.get_payload()[28:] == b"good":
            packet.accept()
        else:
            queue.drop_after_burst(packet)

    with server.inside():
        queue = PacketQueue(NUMBER, on_packet, length=100)
    with (
        closing(queue),
        udp(client, socket.AF_INET, bound=False) as source,
        udp(server, socket.AF_INET, bound=True) as sink,
    ):
        for octets in (b"bad", b"good", b"bad", b"bad", b"good", b"bad", b"bad"):
            source.sendto(octets, (str(server.addr4), PORT))
        until(lambda: waiting_in_kernel(server) == 7)
        queue.read(burst=6)
        assert waiting_in_kernel(server) == 1, "the last one is of the next burst"
        queue.read()
        assert waiting_in_kernel(server) == 0
        until(lambda: bool(select.select([sink], (), (), 0)[0]), sink)
        assert [sink.recv(100), sink.recv(100)] == [b"good", b"good"]
        assert not select.select([sink], (), (), 0)[0]
        queue.read()
    assert (queue.packets, queue.callback_errors) == (7, 0)


def test_receive_buffer_full_is_counted_and_reading_goes_on(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    queue_arriving_udp(server)
    with server.inside():
        queue = PacketQueue(NUMBER, Packet.drop, length=1000, receive_buffer_octets=4096)
    with closing(queue), udp(client, socket.AF_INET, bound=False) as source:
        for _ in range(50):
            source.sendto(bytes(1000), (str(server.addr4), PORT))
        with server.inside():
            pump(lambda: queue.packets + queue.dropped_by_kernel() == 50, [(queue, queue.read)])
        assert queue.overruns > 0
        before = queue.packets
        source.sendto(b"x", (str(server.addr4), PORT))
        pump(lambda: queue.packets > before, [(queue, queue.read)])


def test_packets_before_and_after_close_do_not_disturb_another_queue(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    queue_arriving_udp(server)
    with udp(client, socket.AF_INET, bound=False) as source, server.inside():
        for _ in range(3):
            queue = PacketQueue(NUMBER, Packet.drop, length=100)
            source.sendto(bytes(1000), (str(server.addr4), PORT))
            queue.close()
        last = PacketQueue(NUMBER, Packet.drop, length=100)
        with closing(last):
            source.sendto(b"x", (str(server.addr4), PORT))
            pump(lambda: last.packets == 1, [(last, last.read)])


def test_packet_that_arrives_while_the_queue_is_set_up_is_never_cut_off(
    wide_hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = wide_hosts
    queue_arriving_udp(server)
    lengths: list[int] = []

    def on_packet(packet: Packet) -> None:
        lengths.append(len(packet.get_payload()))
        packet.drop()

    configure = PacketQueue._configure

    def configure_late(queue: PacketQueue, gso: bool) -> None:
        source.sendto(bytes(20000), (str(server.addr4), PORT))
        configure(queue, gso)

    monkeypatch.setattr(PacketQueue, "_configure", configure_late)
    with udp(client, socket.AF_INET, bound=False) as source:
        with server.inside():
            queue = PacketQueue(NUMBER, on_packet, length=100)
        with closing(queue):
            source.sendto(bytes(30000), (str(server.addr4), PORT))
            pump(lambda: 30028 in lengths, [(queue, queue.read)])
    assert set(lengths) <= {20028, 30028}


def test_number_in_use_is_a_start_error_that_names_it(hosts: tuple[Host, Host]) -> None:
    _, server = hosts
    with server.inside():
        with closing(PacketQueue(NUMBER, Packet.drop, length=10)), pytest.raises(StartError, match="700 is in use"):
            PacketQueue(NUMBER, Packet.drop, length=10)
        PacketQueue(NUMBER, Packet.drop, length=10).close()


def test_no_right_is_a_start_error_that_names_it(hosts: tuple[Host, Host]) -> None:
    program = (
        "import os\n"
        "from tcpha.errors import StartError\n"
        "from tcpha.net.nfqueue import PacketQueue\n"
        "os.setuid(65534)\n"
        "try: PacketQueue(1, print, length=1)\n"
        "except StartError as error: print(error)\n"
    )
    with hosts[0].inside():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "CAP_NET_ADMIN" in done.stdout
