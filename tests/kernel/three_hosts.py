"""Three network namespaces on one bridge, a client, a front end and a back end; of this package only the program.

The back end's server is a kernel socket that was put into the state behind a handshake (TCP_REPAIR): it takes the
client's octets, and its answers are taken by the client, only if every number and checksum is right.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tcpha.lab import namespaces
from tcpha.net import clock
from tcpha.net.bpf_forwarder import Forwarder
from tcpha.proto.cookie import PERIOD_S, Agreement, SynCookies
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Identity
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import SeqNum
from tests.kernel.fe_rehearsal import KEYRING

IFACE = "eth0"
CLIENT = {4: "198.18.0.10", 6: "2001:db8::10"}
FRONT_END = {4: "198.18.0.23", 6: "2001:db8::23"}
BACK_END = {4: "198.18.0.33", 6: "2001:db8::33"}
VIP = {4: "198.18.0.36", 6: "2001:db8::36"}
PORT = 80
PROMISE = Promise(1460, 7, True, True)
WINDOW = 65535
CARRIED_OCTETS = 1460
"""What fits through every tunnel here."""
_PREFIX = {4: 24, 6: 64}
_REPAIR, _QUEUE, _QUEUE_SEQ, _OPTIONS, _TIMESTAMP, _WINDOW = 19, 20, 21, 22, 24, 29
_RECEIVE, _SEND = 1, 2
_OFF_WITHOUT_PROBE = -1
_OPTION = struct.Struct("=II")
_WINDOWS = struct.Struct("=IIIII")
_TCP_INFO_OPTIONS = struct.Struct("=5xBB")  # options, window scales


@dataclass(frozen=True)
class Hosts:
    client: str
    front_end: str
    back_end: str
    bridge: str

    def run(self, where: str, *words: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{where}", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def mac(self, where: str) -> bytes:
        with namespaces.inside(where), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as looking:
            looking.bind((IFACE, 0))
            return bytes(looking.getsockname()[4])

    def connect(self, family: int) -> socket.socket:
        """A client's connection to the virtual address: the program alone has answered."""
        with namespaces.inside(self.client):
            client = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
        client.settimeout(5.0)
        client.connect((VIP[family], PORT))
        return client

    @contextmanager
    def server_of(self, client: socket.socket, family: int) -> Iterator[tuple[Identity, socket.socket]]:
        """The connection's other end, at the back end; and who it is."""
        identity = identity_of(client, family)
        agreed, scales = _TCP_INFO_OPTIONS.unpack_from(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 7))
        with namespaces.inside(self.back_end):
            server = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
        with server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
            for queue, number in ((_SEND, identity.iss + 1), (_RECEIVE, identity.irs + 1)):
                server.setsockopt(socket.IPPROTO_TCP, _QUEUE, queue)
                server.setsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ, struct.pack("=I", number & 0xFFFFFFFF))
            server.bind((VIP[family], PORT))
            server.connect(client.getsockname()[:2])
            options = [(2, PROMISE.mss_of(family == 6) - 100), (4, 0)]  # MSS, SACK
            if agreed & 4:
                options.append((3, scales >> 4 | 7 << 16))  # the client's scale, the promised one
            if agreed & 1:
                options.append((8, 0))
            server.setsockopt(socket.IPPROTO_TCP, _OPTIONS, b"".join(_OPTION.pack(*each) for each in options))
            if agreed & 1:
                # An odd number would mean a clock of microseconds.
                tsval = tsval_of(identity) + 2 & 0xFFFFFFFE
                server.setsockopt(socket.IPPROTO_TCP, _TIMESTAMP, struct.pack("=I", tsval))
            # Where the client's last window came, the windows of both, where ours was told.
            windows = _WINDOWS.pack(identity.irs, WINDOW, WINDOW, WINDOW, identity.irs + 1 & 0xFFFFFFFF)
            server.setsockopt(socket.IPPROTO_TCP, _WINDOW, windows)
            server.setsockopt(socket.IPPROTO_TCP, _REPAIR, _OFF_WITHOUT_PROBE)
            server.settimeout(5.0)
            yield identity, server


def identity_of(client: socket.socket, family: int) -> Identity:
    """Who a client's fresh connection is."""
    client.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
    numbers = []
    for queue in (_SEND, _RECEIVE):
        client.setsockopt(socket.IPPROTO_TCP, _QUEUE, queue)
        numbers.append(struct.unpack("=I", client.getsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ, 4))[0])
    client.setsockopt(socket.IPPROTO_TCP, _QUEUE, 0)
    client.setsockopt(socket.IPPROTO_TCP, _REPAIR, _OFF_WITHOUT_PROBE)
    address, port = client.getsockname()[:2]
    key = connection_key(ip_address(address), port, ip_address(VIP[family]), PORT)
    return Identity(key, SeqNum((numbers[0] - 1) & 0xFFFFFFFF), SeqNum((numbers[1] - 1) & 0xFFFFFFFF))


def tsval_of(identity: Identity) -> int:
    """The timestamp that the SYN-ACK carried: part of the cookie."""
    for age_s in (0, PERIOD_S):
        iss, tsval = SynCookies(KEYRING).make(identity.key, identity.irs, Agreement(0, 0, False), clock.utc() - age_s)
        if not (iss ^ identity.iss) >> 8:
            return tsval
    raise AssertionError("no cookie of the front end's")


@contextmanager
def three_hosts(name: str) -> Iterator[Hosts]:
    """All three, gone afterwards."""
    hosts = Hosts(f"{name}c", f"{name}f", f"{name}b", f"{name}s")
    with ExitStack() as undo:
        for each in (hosts.client, hosts.front_end, hosts.back_end, hosts.bridge):
            namespaces.create(each)
            undo.callback(namespaces.remove, each)
        _connect(hosts)
        yield hosts


def _connect(hosts: Hosts) -> None:
    hosts.run(hosts.bridge, "ip", "link", "add", "br0", "type", "bridge")
    hosts.run(hosts.bridge, "ip", "link", "set", "br0", "up")
    for port, (where, addresses) in enumerate(
        ((hosts.client, CLIENT), (hosts.front_end, FRONT_END), (hosts.back_end, BACK_END))
    ):
        end = f"port{port}"
        hosts.run(
            hosts.bridge,
            "ip",
            "link",
            "add",
            end,
            "type",
            "veth",
            "peer",
            "name",
            IFACE,
            "netns",
            f"/run/netns/{where}",
        )
        hosts.run(hosts.bridge, "ip", "link", "set", end, "master", "br0", "up")
        hosts.run(where, "ip", "link", "set", "lo", "up")
        hosts.run(where, "ip", "link", "set", IFACE, "up")
        for family in (4, 6):
            words = ["nodad"] if family == 6 else []
            hosts.run(where, "ip", "addr", "add", f"{addresses[family]}/{_PREFIX[family]}", "dev", IFACE, *words)
    for where in (hosts.front_end, hosts.back_end):
        if where == hosts.back_end:
            for setting in ("arp_ignore=1", "arp_announce=2"):
                hosts.run(where, "sysctl", "-qw", f"net.ipv4.conf.all.{setting}")
        hosts.run(where, "ip", "addr", "add", f"{VIP[4]}/32", "dev", "lo")
        device = IFACE if where == hosts.front_end else "lo"
        hosts.run(where, "ip", "addr", "add", f"{VIP[6]}/128", "dev", device, "nodad")


def forwarder_of(pins: Path | None = None) -> Forwarder:
    """The program for a front end, told of everything but its back ends and flows. To be called where it is to run."""
    forwarder = Forwarder(IFACE, KEYRING, PROMISE.fitted(CARRIED_OCTETS), WINDOW, pins=pins)
    forwarder.set_targets([(ip_address(each).packed, PORT) for each in VIP.values()])
    forwarder.renew(clock.utc(), -1)
    return forwarder
