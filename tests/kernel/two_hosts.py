"""Two network namespaces on one cable: client and front end at one end, a back end with nginx at the other.

The client is a kernel socket that was put into the state behind a handshake and a sent request (TCP_REPAIR): what it
takes from the server bears the right numbers, or it would not take it. No agent runs: what it would get is dropped, so
everything that goes through was the programs' work.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tcpha.lab import namespaces
from tcpha.lab.nginx import find_program
from tcpha.lab.waiting import wait_until
from tcpha.net.bpf_adopter import Adopter
from tcpha.proto.messages import Handoff
from tcpha.proto.seqnum import seq_add
from tests.kernel.frames import BACK_END, CLIENT, FRONT_END, KEYRING, MARK, PORT, RETRY_MARK, VIP, VIP_PORT

NEAR, FAR = "near", "far"  # the cable's ends: the client's, the back end's
_REPAIR, _QUEUE, _QUEUE_SEQ, _OPTIONS, _TIMESTAMP, _REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
_RECEIVE, _SEND = 1, 2
_OFF_WITHOUT_PROBE = -1
_MSS, _WINDOW, _SACK, _STAMPS = 2, 3, 4, 8
_OPTION = struct.Struct("=II")
_PREFIX = {4: 24, 6: 64}


@dataclass(frozen=True)
class Hosts:
    client: str
    server: str

    def run(self, where: str, *words: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{where}", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def send(self, octets: bytes, family: int = 4) -> None:
        """A datagram from front end to back end."""
        with namespaces.inside(self.client), socket.socket(_family(family), socket.SOCK_DGRAM) as channel:
            channel.bind((FRONT_END[family], PORT))
            channel.sendto(octets, (BACK_END[family], PORT))

    @contextmanager
    def client_of(self, message: Handoff, family: int = 4) -> Iterator[socket.socket]:
        """The client's socket, its request sent and not acknowledged."""
        with namespaces.inside(self.client), socket.socket(_family(family)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
            identity, agreement = message.identity, message.agreement
            for queue, number in ((_SEND, seq_add(identity.irs, 1)), (_RECEIVE, seq_add(identity.iss, 1))):
                client.setsockopt(socket.IPPROTO_TCP, _QUEUE, queue)
                client.setsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ, struct.pack("=I", number))
            client.bind((CLIENT[family], int.from_bytes(identity.key[-4:-2], "big")))
            client.connect((VIP[family], VIP_PORT))
            options = [_OPTION.pack(_MSS, agreement.mss)]
            if message.promised_window_scale is not None:
                options.append(_OPTION.pack(_WINDOW, message.promised_window_scale | agreement.window_scale << 16))  # type: ignore[operator]
            if agreement.sack:
                options.append(_OPTION.pack(_SACK, 0))
            if message.tsval_sent is not None:
                options.append(_OPTION.pack(_STAMPS, 0))
            client.setsockopt(socket.IPPROTO_TCP, _OPTIONS, b"".join(options))
            if message.tsval_sent is not None:
                client.setsockopt(socket.IPPROTO_TCP, _TIMESTAMP, struct.pack("=I", message.tsval_client))
            client.setsockopt(socket.IPPROTO_TCP, _QUEUE, _SEND)
            if message.octets:
                client.send(message.octets)
            else:  # else the server's first packet tells the window
                peer_next = seq_add(identity.iss, 1)
                window = struct.pack("=IIIII", peer_next, 65535, 65535, 65535, peer_next)
                client.setsockopt(socket.IPPROTO_TCP, _REPAIR_WINDOW, window)
            client.setsockopt(socket.IPPROTO_TCP, _REPAIR, _OFF_WITHOUT_PROBE)
            client.settimeout(10.0)
            yield client

    @contextmanager
    def adopter(self, period: int, sender: int, epoch: int, table: int, family: int = 4) -> Iterator[Adopter]:
        """The programs, attached at the back end."""
        with namespaces.inside(self.server):
            own = ip_address(BACK_END[family]).packed
            adopter = Adopter((own, PORT), KEYRING, mark=MARK, retry_mark=RETRY_MARK)
            try:
                adopter.renew(period)
                adopter.set_peer(ip_address(FRONT_END[family]).packed, PORT, sender, epoch, table)
                adopter.set_targets([(ip_address(VIP[each]).packed, VIP_PORT) for each in (4, 6)])
                adopter.attach(FAR)
                yield adopter
            finally:
                adopter.close()

    def sockets(self, *words: str) -> str:
        """What ss says of the server's sockets."""
        return self.run(self.server, "ss", "-tanmio", *words)


@contextmanager
def two_hosts(name: str) -> Iterator[Hosts]:
    """Both hosts, gone afterwards."""
    hosts = Hosts(f"{name}c", f"{name}s")
    namespaces.create(hosts.client)
    try:
        namespaces.create(hosts.server)
        try:
            _connect(hosts)
            yield hosts
        finally:
            namespaces.remove(hosts.server)
    finally:
        namespaces.remove(hosts.client)


def _connect(hosts: Hosts) -> None:
    hosts.run(
        hosts.client,
        "ip",
        "link",
        "add",
        NEAR,
        "type",
        "veth",
        "peer",
        "name",
        FAR,
        "netns",
        f"/run/netns/{hosts.server}",
    )
    for where, iface, addresses in (
        (hosts.client, NEAR, (FRONT_END, CLIENT)),
        (hosts.server, FAR, (BACK_END,)),
    ):
        hosts.run(where, "ip", "link", "set", "lo", "up")
        hosts.run(where, "ip", "link", "set", iface, "up")
        for family in (4, 6):
            for each in addresses:
                words = ["nodad"] if family == 6 else []
                hosts.run(where, "ip", "addr", "add", f"{each[family]}/{_PREFIX[family]}", "dev", iface, *words)
    for family in (4, 6):
        words = ["nodad"] if family == 6 else []
        hosts.run(hosts.server, "ip", "addr", "add", VIP[family], "dev", FAR, *words)
        hosts.run(hosts.server, "ip", f"-{family}", "route", "add", f"{CLIENT[family]}", "dev", FAR)
    for setting in ("tcp_fwmark_accept=1", "tcp_syncookies=1"):
        hosts.run(hosts.server, "sysctl", "-qw", f"net.ipv4.{setting}")
    _drop_what_the_agent_would_get(hosts)


def _drop_what_the_agent_would_get(hosts: Hosts) -> None:
    unmarked = ["-m", "mark", "!", "--mark", hex(MARK), "-j", "DROP"]
    for family, command in ((4, "iptables"), (6, "ip6tables")):
        arriving = ["PREROUTING", "-i", FAR, "-d", VIP[family], "-p", "tcp", "--dport", str(VIP_PORT)]
        leaving = ["POSTROUTING", "-o", FAR, "-s", VIP[family], "-p", "tcp", "--sport", str(VIP_PORT)]
        hosts.run(hosts.server, command, "-w", "-t", "raw", "-A", *arriving, *unmarked)
        hosts.run(hosts.server, command, "-w", "-t", "mangle", "-A", *leaving, *unmarked)


@contextmanager
def nginx(hosts: Hosts, directory: Path, *, listen: str = "") -> Iterator[None]:
    """An unmodified nginx at the back end, which serves `directory`."""
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"""daemon off; master_process off; user root; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{ access_log {directory}/access.log; sendfile on; server {{
 listen {VIP_PORT} {listen}; listen [::]:{VIP_PORT} ipv6only=on {listen}; root {directory}; }} }}
"""
    )
    nginx_path = find_program()
    assert nginx_path is not None
    with namespaces.inside(hosts.server):
        process = subprocess.Popen(
            [nginx_path, "-p", str(directory), "-c", str(configuration)], stdin=subprocess.DEVNULL
        )
    try:
        assert wait_until(lambda: f":{VIP_PORT}" in hosts.run(hosts.server, "ss", "-Htln"), limit_s=5.0)
        yield
    finally:
        process.terminate()
        process.wait()


def _family(family: int) -> socket.AddressFamily:
    return socket.AF_INET if family == 4 else socket.AF_INET6


def received(client: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    pieces = []
    while piece := client.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)
