"""Channel: datagrams whole, aged, never fragmented; faults counted."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import IPv4Address, IPv6Address

import pytest

from tcpha.errors import StartError
from tcpha.net import clock
from tcpha.net.channel import Channel
from tests.unit.net.namespaces import Host, pair, until

pytestmark = pytest.mark.cluster

PORT = 666
Datagrams = list[tuple[bytes, tuple[str, int], float]]


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


def addr_of(host: Host, family: int) -> IPv4Address | IPv6Address:
    return host.addr4 if family == 4 else host.addr6


def channel_of(host: Host, family: int = 4) -> Channel:
    with host.inside():
        return Channel(addr_of(host, family), PORT)


def received(channel: Channel, count: int) -> Datagrams:
    datagrams: Datagrams = []

    def enough() -> bool:
        datagrams.extend(channel.read())
        return len(datagrams) >= count

    until(enough, channel)
    return datagrams


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_find_the_receive_buffer_full_are_counted(hosts: tuple[Host, Host], family: int) -> None:
    left, right = hosts
    sent, got = 200, 0
    with right.inside():
        small = Channel(addr_of(right, family), PORT, receive_buffer_octets=16_384)
    with closing(channel_of(left, family)) as sender, closing(small) as receiver:
        for _ in range(sent):
            sender.send(bytes(1000), (str(addr_of(right, family)), PORT))

        def all_accounted_for() -> bool:
            nonlocal got
            got += len(receiver.read())
            return got + receiver.dropped_by_kernel() == sent

        until(all_accounted_for)
        assert 0 < got < sent


@pytest.mark.parametrize("family", [4, 6])
def test_send_largest_datagram_arrives_with_source_and_age(hosts: tuple[Host, Host], family: int) -> None:
    left, right = hosts
    largest = 1500 - (28 if family == 4 else 48)
    octets = bytes(range(256)) * 8
    with closing(channel_of(left, family)) as sender, closing(channel_of(right, family)) as receiver:
        sender.send(octets[:largest], (str(addr_of(right, family)), PORT))
        sender.send(b"", (str(addr_of(right, family)), PORT))
        datagrams = received(receiver, 2)
    assert [(datagram, source) for datagram, source, _ in datagrams] == [
        (octets[:largest], (str(addr_of(left, family)), PORT)),
        (b"", (str(addr_of(left, family)), PORT)),
    ]
    assert all(0 <= age < 5 for _, _, age in datagrams)
    assert sender.errors == receiver.errors == {}


@pytest.mark.parametrize("family", [4, 6])
def test_send_datagram_beyond_the_mtu_is_counted_not_fragmented(hosts: tuple[Host, Host], family: int) -> None:
    left, right = hosts
    with closing(channel_of(left, family)) as sender, closing(channel_of(right, family)) as receiver:
        sender.send(bytes(1500 - 27), (str(addr_of(right, family)), PORT))
        sender.send(b"small", (str(addr_of(right, family)), PORT))
        assert [datagram for datagram, _, _ in received(receiver, 1)] == [b"small"]
    assert sender.errors == {"EMSGSIZE": 1}


def test_datagram_that_waited_has_the_age_since_the_kernel_received_it(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = hosts
    with closing(channel_of(left)) as sender, closing(channel_of(right)) as receiver:
        before_s = clock.utc()
        sender.send(b"old", (str(right.addr4), PORT))
        until(lambda: bool(select_readable(receiver)), receiver)
        monkeypatch.setattr(clock, "utc", lambda: before_s + 100)
        [(_, _, age_s)] = receiver.read()
        assert 95 < age_s <= 100
        sender.send(b"from the future", (str(right.addr4), PORT))
        until(lambda: bool(select_readable(receiver)), receiver)
        monkeypatch.setattr(clock, "utc", lambda: before_s - 100)
        [(_, _, age_s)] = receiver.read()
        assert age_s == 0.0


def select_readable(channel: Channel) -> list[Channel]:
    return select.select([channel], (), (), 0)[0]


def test_read_burst_leaves_the_rest_for_the_next_read(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    with closing(channel_of(left)) as sender, closing(channel_of(right)) as receiver:
        for number in range(10):
            sender.send(bytes([number]), (str(right.addr4), PORT))
        datagrams: Datagrams = []
        while len(datagrams) < 10:
            until(lambda: bool(select_readable(receiver)), receiver)
            burst = receiver.read(burst=4)
            assert 0 < len(burst) <= 4
            datagrams += burst
    assert [datagram for datagram, _, _ in datagrams] == [bytes([number]) for number in range(10)]


def test_icmp_errors_raise_nowhere(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    with closing(channel_of(left)) as sender:
        # Nobody listens there: port unreachable comes back. An unused address: host unreachable after a while.
        for _ in range(3):
            sender.send(b"x", (str(right.addr4), 9))
        assert sender.read() == []
        sender.send(b"x", ("198.51.100.1", PORT))
        assert sender.read() == []
    assert sender.errors.get("ENETUNREACH") == 1


def test_pending_socket_error_is_counted_and_reading_goes_on(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    with closing(channel_of(left)) as channel, closing(channel_of(right)) as peer:
        # With extended errors on, the kernel reports ICMP errors on the next call, as it does on some paths anyway.
        channel._socket.setsockopt(socket.IPPROTO_IP, 11, 1)
        channel.send(b"x", (str(right.addr4), 9))
        peer.send(b"answer", (str(left.addr4), PORT))
        assert [datagram for datagram, _, _ in received(channel, 1)] == [b"answer"]
        until(lambda: channel.read() == [] and bool(channel.errors), channel)
    assert channel.errors == {"ECONNREFUSED": 1}


@pytest.mark.parametrize("family", [4, 6])
def test_port_in_use_is_a_start_error_that_names_it(hosts: tuple[Host, Host], family: int) -> None:
    host = hosts[0]
    name = r"10\.77\.0\.1:666 is in use" if family == 4 else r"\[fd77::1\]:666 is in use"
    with closing(channel_of(host, family)), pytest.raises(StartError, match=name):
        channel_of(host, family)


@pytest.mark.parametrize("addr", [IPv4Address("10.77.0.9"), IPv6Address("fd77::9")])
def test_address_of_another_host_is_a_start_error(hosts: tuple[Host, Host], addr: IPv4Address | IPv6Address) -> None:
    with hosts[0].inside(), pytest.raises(StartError, match="no address of this host"):
        Channel(addr, PORT)


def test_missing_right_is_a_start_error_that_names_it(hosts: tuple[Host, Host]) -> None:
    program = (
        "import os\n"
        "from ipaddress import ip_address\n"
        "from tcpha.errors import StartError\n"
        "from tcpha.net.channel import Channel\n"
        "os.setuid(65534)\n"
        "try: Channel(ip_address('127.0.0.1'), 666)\n"
        "except StartError as error: print(error)\n"
    )
    with hosts[0].inside():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "CAP_NET_BIND_SERVICE" in done.stdout


@pytest.mark.parametrize("family", [4, 6])
def test_posted_datagrams_leave_together_and_in_order_whatever_their_number_and_size(
    hosts: tuple[Host, Host], family: int
) -> None:
    left, right = hosts
    to = (str(addr_of(right, family)), PORT)
    for host in hosts:
        host.run(f"ip link set {host.iface} mtu 9000")
    octets = [bytes([number]) * (1 + 40 * number) for number in range(100)]
    with closing(channel_of(left, family)) as sender, closing(channel_of(right, family)) as receiver:
        sender.post(b"alone", to)
        assert not select_readable(receiver)
        sender.flush()
        assert [datagram for datagram, _, _ in received(receiver, 1)] == [b"alone"]
        for each in octets:
            sender.post(each, to)
        sender.send(b"last", to)
        assert [datagram for datagram, _, _ in received(receiver, 101)] == [*octets, b"last"]
        assert sender.errors == {}


def test_posted_datagrams_leave_for_their_own_addresses_whoever_had_their_places_before(
    hosts: tuple[Host, Host],
) -> None:
    left, right = hosts
    with closing(channel_of(left)) as sender, ExitStack() as stack, right.inside():
        receivers = {port: stack.enter_context(closing(Channel(right.addr4, port))) for port in (1001, 1002)}
        for burst in ((1001, 1002), (1002, 1001), (1001, 1001), (1002,)):
            for port in burst:
                sender.post(str(port).encode(), (str(right.addr4), port))
            sender.flush()
            for port in set(burst):
                found = received(receivers[port], burst.count(port))
                assert {datagram for datagram, _, _ in found} == {str(port).encode()}


def test_posted_datagram_cannot_be_sent_it_is_counted_and_the_others_leave(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    to = (str(right.addr4), PORT)
    with closing(channel_of(left)) as sender, closing(channel_of(right)) as receiver:
        for datagram in (b"first", bytes(1600), b"second", bytes(1700), b"third"):
            sender.post(datagram, to)
        sender.flush()
        assert [datagram for datagram, _, _ in received(receiver, 3)] == [b"first", b"second", b"third"]
        assert sender.errors == {"EMSGSIZE": 2}


def test_more_senders_than_are_kept_in_words_each_datagram_has_its_own_source(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcpha.net.datagrams.MOST_SOURCES", 3)
    left, right = hosts
    with closing(channel_of(right)) as receiver, left.inside():
        for port in (1001, 1002, 1003, 1004, 1005, 1001):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((str(left.addr4), port))
                stranger.sendto(str(port).encode(), (str(right.addr4), PORT))
        found = received(receiver, 6)
    assert [source for _, source, _ in found] == [(str(left.addr4), int(datagram)) for datagram, _, _ in found]
