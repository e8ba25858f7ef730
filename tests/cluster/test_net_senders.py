"""RawSender and LinkSender: what leaves is what was given, and faults are counted."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from tcpha.errors import StartError
from tcpha.net.link import LinkSender, merges_on_receive
from tcpha.net.raw import RawSender
from tests.unit.net.namespaces import DEADLINE_S, Host, pair

pytestmark = pytest.mark.cluster

ETH_P_ALL = 3
MARK = 0x7C0A


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


def listening(host: Host) -> socket.socket:
    """Everything that arrives on the host's interface, with its Ethernet header."""
    with host.inside():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        tap.bind((host.iface, ETH_P_ALL))
    return tap


def frame_with(tap: socket.socket, octets: bytes) -> bytes:
    """The first frame that contains `octets`."""
    while select.select([tap], (), (), DEADLINE_S)[0]:
        frame = tap.recv(65536)
        if octets in frame:
            return frame
    pytest.fail("the packet did not arrive")


def segment(version: int, source: str, destination: str, octets: bytes) -> bytes:
    header = IP(src=source, dst=destination, id=7) if version == 4 else IPv6(src=source, dst=destination)
    return bytes(header / TCP(sport=80, dport=40000, flags="PA", seq=1, ack=2) / Raw(octets))


def mac_of(host: Host) -> bytes:
    with host.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
        probe.bind((host.iface, 0))
        mac: bytes = probe.getsockname()[4]
    return mac


@pytest.mark.parametrize(("version", "source"), [(4, "192.0.2.100"), (6, "2001:db8::100")])
def test_raw_sender_packet_with_foreign_source_leaves_unchanged_and_marked(
    hosts: tuple[Host, Host], version: int, source: str
) -> None:
    left, right = hosts
    left.restore_rules(version, "*mangle", f"-A OUTPUT -m mark --mark {MARK:#x} -j ACCEPT", "COMMIT")
    destination = str(right.addr4 if version == 4 else right.addr6)
    packet = segment(version, source, destination, b"these very octets")
    with left.inside():
        sender = RawSender(MARK)
    with closing(sender), listening(right) as tap:
        sender.send(packet)
        assert frame_with(tap, b"these very octets")[14:] == packet
    assert sender.errors == {}
    save = "iptables-save -c" if version == 4 else "ip6tables-save -c"
    assert "[1:" in left.run(f"{save} -t mangle").partition("-A OUTPUT")[0].rpartition("\n")[2]


def test_raw_sender_packet_without_identification_gets_one_only_if_it_may_be_fragmented(
    hosts: tuple[Host, Host],
) -> None:
    """RFC 6864: an atomic datagram needs none, any other must not share its own."""
    left, right = hosts
    with left.inside():
        sender = RawSender(MARK)
    found = []
    with closing(sender), listening(right) as tap:
        for number, flags in enumerate(("DF", "", "", "DF")):
            octets = b"number %d" % number
            sender.send(bytes(IP(src=str(left.addr4), dst=str(right.addr4), id=0, flags=flags) / TCP() / Raw(octets)))
            found.append(IP(frame_with(tap, octets)[14:]).id)
    assert (found[0], found[3]) == (0, 0)
    assert 0 not in found[1:3]
    assert found[1] != found[2]


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (b"", "EINVAL"),
        (b"\x45\x00", "EINVAL"),
        (b"\x60\x00", "EINVAL"),
        (segment(4, "10.77.0.1", "10.77.0.2", bytes(1461)), "EMSGSIZE"),
        (segment(6, "fd77::1", "fd77::2", bytes(1441)), "EMSGSIZE"),
        (segment(4, "10.77.0.1", "198.51.100.1", b""), "ENETUNREACH"),
        (segment(6, "fd77::1", "2001:db8::1", b""), "ENETUNREACH"),
    ],
)
def test_raw_sender_packet_that_cannot_be_sent_is_counted(hosts: tuple[Host, Host], packet: bytes, error: str) -> None:
    with hosts[0].inside():
        sender = RawSender(MARK)
    with closing(sender):
        sender.send(packet)
        sender.send(packet)
    assert sender.errors == {error: 2}


@pytest.mark.parametrize(("version", "most"), [(4, 1460), (6, 1440)])
def test_link_sender_packet_for_elsewhere_reaches_the_neighbour_unchanged(
    hosts: tuple[Host, Host], version: int, most: int
) -> None:
    left, right = hosts
    mark = b"exactly the largest packet"
    packet = segment(
        version,
        *(("192.0.2.1", "198.51.100.2") if version == 4 else ("2001:db8::1", "2001:db8::2")),
        mark + bytes(most - len(mark)),
    )
    assert len(packet) == 1500
    with left.inside():
        sender = LinkSender(left.iface)
    with closing(sender), listening(right) as tap:
        sender.send(mac_of(right), packet)
        frame = frame_with(tap, mark)
    ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
    assert frame == mac_of(right) + mac_of(left) + ethertype + packet
    assert sender.errors == {}


def test_link_sender_faults_are_counted(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    mac = mac_of(right)
    with left.inside():
        sender = LinkSender(left.iface)
    with closing(sender):
        sender.send(mac, b"")
        sender.send(mac, segment(4, "10.77.0.1", "10.77.0.2", bytes(1461)))
        left.run(f"ip link set {left.iface} down")
        sender.send(mac, segment(4, "10.77.0.1", "10.77.0.2", b"x"))
    assert sender.errors == {"EINVAL": 1, "EMSGSIZE": 1, "ENETDOWN": 1}


def test_link_senders_interface_is_made_again_it_follows_and_sends_from_the_new_mac(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    packet = segment(4, "10.77.0.1", "10.77.0.2", b"to whom it was made again for")
    with left.inside():
        sender = LinkSender(left.iface)
    with closing(sender):
        left.run(f"ip link delete {left.iface}")
        with pytest.raises(StartError, match=f"no interface {left.iface}"):
            sender.follow()
        left.run(f"ip link add {left.iface} type veth peer name {right.iface} netns {right.namespace}")
        for host in hosts:
            host.run(f"ip link set {host.iface} up")
        sender.follow()
        with listening(right) as tap:
            sender.send(mac_of(right), packet)
            sender.send(mac_of(right), packet)  # the first may tell of the interface that went
            assert frame_with(tap, b"to whom")[6:12] == mac_of(left)


def test_link_sender_receives_nothing(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    with left.inside():
        sender = LinkSender(left.iface)
    with closing(sender), listening(left) as tap, right.inside():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.sendto(b"a datagram", (str(left.addr4), 9))
        frame_with(tap, b"a datagram")
        assert select.select([sender._socket], (), (), 0)[0] == []


def test_link_sender_without_interface_is_a_start_error(hosts: tuple[Host, Host]) -> None:
    with hosts[0].inside(), pytest.raises(StartError, match="no interface nowhere0"):
        LinkSender("nowhere0")


def test_interface_without_receive_offload_is_left_alone(hosts: tuple[Host, Host]) -> None:
    with hosts[0].inside():
        assert not merges_on_receive("lo")
        assert not merges_on_receive(hosts[0].iface)
        assert not merges_on_receive("nowhere0")


@pytest.mark.parametrize("construct", ["raw.RawSender(1)", "link.LinkSender('lo')"])
def test_sender_without_rights_is_a_start_error_that_names_it(hosts: tuple[Host, Host], construct: str) -> None:
    program = (
        "import os\n"
        "from tcpha.errors import StartError\n"
        "from tcpha.net import link, raw\n"
        "os.setuid(65534)\n"
        f"try: {construct}\n"
        "except StartError as error: print(error)\n"
    )
    with hosts[0].inside():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "CAP_NET_RAW" in done.stdout
