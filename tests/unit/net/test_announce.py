from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

from tcpha.net.announce import frame

MAC = "02:00:00:00:00:07"
OWN = bytes.fromhex("020000000007")


def test_ipv4_frame_is_an_announcement_of_rfc_5227() -> None:
    octets = frame(ip_address("10.0.0.100"), MAC)
    vip = bytes([10, 0, 0, 100])
    assert octets[:14] == b"\xff" * 6 + OWN + b"\x08\x06"
    # Ethernet, IPv4, lengths, request; sender and target are the same address.
    assert octets[14:42] == b"\x00\x01\x08\x00\x06\x04\x00\x01" + OWN + vip + bytes(6) + vip


def test_ipv6_frame_is_an_unsolicited_advertisement_of_rfc_4861() -> None:
    vip = ip_address("fd00::100")
    octets = frame(vip, MAC)
    assert octets[:14] == bytes.fromhex("333300000001") + OWN + b"\x86\xdd"
    assert octets[20:22] == b"\x3a\xff"  # ICMPv6, hop limit 255
    assert octets[22:54] == vip.packed + ip_address("ff02::1").packed
    assert octets[54:56] == b"\x88\x00"
    assert octets[58:62] == b"\x20\x00\x00\x00"  # override, neither router nor solicited
    assert octets[62:] == vip.packed + b"\x02\x01" + OWN
    assert checksum(octets[22:54] + (32).to_bytes(4, "big") + b"\0\0\0\x3a" + octets[54:]) == 0


def checksum(octets: bytes) -> int:
    """RFC 1071, over a whole message: 0 if its checksum is right."""
    total = sum(int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def test_module_does_not_load_scapy() -> None:
    program = "import sys, tcpha.net.announce; print('scapy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
