"""Tells the link that a virtual address lives here now: gratuitous ARP (RFC 5227, 3), unsolicited neighbour
advertisements (RFC 4861, 7.2.6).

The frames are made with scapy, which takes long to load and much memory, so they are made in a child process that ends
after a few seconds: ``python -m tcpha.net.announce IFACE VIP...``. This module imports scapy only there.
"""

from __future__ import annotations

import argparse
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

# Deviation: RFC 5227 announces twice with 2 s between, RFC 4861 three times with 1 s; one rhythm serves both.
_ROUNDS = 3
_INTERVAL_S = 1.0
_BROADCAST = "ff:ff:ff:ff:ff:ff"
_ALL_NODES_MAC = "33:33:00:00:00:01"
_ALL_NODES = "ff02::1"

_log = logging.getLogger(__name__)


def announce(iface: str, vaddrs: Sequence[IPv4Address | IPv6Address]) -> subprocess.Popen[bytes]:
    """Start the child that announces `vaddrs` on `iface` for a few seconds; do not wait for it.

    It works in the network namespace of the calling thread, is collected when it ends, and its failure is logged. The
    child is returned for those who want to know.
    """
    words = [sys.executable, "-m", __name__, iface, *map(str, vaddrs)]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    threading.Thread(target=_collect, args=(child, iface), name="announce", daemon=True).start()
    return child


def _collect(child: subprocess.Popen[bytes], iface: str) -> None:
    _, complaint = child.communicate()
    if child.returncode > 0:  # below 0 it was ended together with the front end
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        _log.warning("virtual addresses were not announced on %s: %s", iface, last)


def frame(addr: IPv4Address | IPv6Address, mac: str) -> bytes:
    """Return the Ethernet frame that binds `addr` to `mac` in every neighbour's table that knows `addr`."""
    from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
    from scapy.layers.l2 import ARP, Ether

    text = str(addr)
    if addr.version == 4:
        ether = Ether(src=mac, dst=_BROADCAST)
        return bytes(ether / ARP(op="who-has", hwsrc=mac, psrc=text, hwdst="00:00:00:00:00:00", pdst=text))
    ether = Ether(src=mac, dst=_ALL_NODES_MAC)
    advertisement = ICMPv6ND_NA(tgt=text, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return bytes(ether / IPv6(src=text, dst=_ALL_NODES, hlim=255) / advertisement)


def main(arguments: Sequence[str] | None = None) -> int:
    """Announce the addresses of the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tcpha.net.announce", description="announce virtual addresses")
    parser.add_argument("iface", metavar="IFACE")
    parser.add_argument("vaddrs", metavar="VIP", nargs="+", type=ip_address)
    options = parser.parse_args(arguments)
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
            link.bind((options.iface, 0))
            mac = link.getsockname()[4].hex(":")
            frames = [frame(vaddr, mac) for vaddr in options.vaddrs]
            for turn in range(_ROUNDS):
                if turn:
                    time.sleep(_INTERVAL_S)
                for each in frames:
                    link.send(each)
    except OSError as error:
        sys.stderr.write(f"{options.iface}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
