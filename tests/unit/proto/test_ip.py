from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from tcpha.proto.ip import (
    ConnectionKey,
    connection_key,
    encode_ip_header,
    key_addresses,
    key_ports,
    key_text,
    reverse_key,
)
from tests.unit.proto.conftest import CLIENT_IPV4, CLIENT_IPV6, KEY_IPV4, KEY_IPV6, VIP_IPV4, VIP_IPV6, keys, u16


def test_ipv4_ends_key_is_as_they_stand_in_a_packet() -> None:
    assert bytes.fromhex("c612000a c6120024 9c40 0050") == KEY_IPV4


def test_ipv6_ends_key_is_as_they_stand_in_a_packet() -> None:
    ends = "20010db8 00000000 00000000 0000000a 20010db8 00000000 00000000 00000024"
    assert bytes.fromhex(ends + "9c40 0050") == KEY_IPV6


def test_addresses_of_two_families_key_is_refused() -> None:
    with pytest.raises(ValueError, match="two families"):
        connection_key(CLIENT_IPV4, 1, VIP_IPV6, 2)


@pytest.mark.parametrize("ports", [(-1, 80), (65536, 80), (1, -1), (1, 65536)])
def test_port_out_of_range_key_is_refused(ports: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="port out of range"):
        connection_key(CLIENT_IPV4, ports[0], VIP_IPV4, ports[1])


def test_smallest_and_largest_port_key_holds_them() -> None:
    assert key_ports(connection_key(CLIENT_IPV4, 0, VIP_IPV4, 65535)) == (0, 65535)


@pytest.mark.parametrize(
    ("key", "text"),
    [(KEY_IPV4, "198.18.0.10:40000 > 198.18.0.36:80"), (KEY_IPV6, "[2001:db8::a]:40000 > [2001:db8::24]:80")],
)
def test_key_written_is_readable(key: ConnectionKey, text: str) -> None:
    assert key_text(key) == text


@given(keys)
def test_any_key_reversed_swaps_both_ends_and_twice_is_itself(key: ConnectionKey) -> None:
    back = reverse_key(key)
    assert key_addresses(back) == key_addresses(key)[::-1]
    assert key_ports(back) == key_ports(key)[::-1]
    assert reverse_key(back) == key


@given(st.ip_addresses(v=4), u16, st.ip_addresses(v=4), u16)
def test_any_ipv4_values_key_gives_them_back(a: IPv4Address, a_port: int, b: IPv4Address, b_port: int) -> None:
    key = connection_key(a, a_port, b, b_port)
    assert (key_addresses(key), key_ports(key)) == ((a.packed, b.packed), (a_port, b_port))


@given(st.ip_addresses(v=6), u16, st.ip_addresses(v=6), u16)
def test_any_ipv6_values_key_gives_them_back(a: IPv6Address, a_port: int, b: IPv6Address, b_port: int) -> None:
    key = connection_key(a, a_port, b, b_port)
    assert (key_addresses(key), key_ports(key)) == ((a.packed, b.packed), (a_port, b_port))


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65515))
def test_any_ipv4_key_header_is_that_of_scapy(source: IPv4Address, destination: IPv4Address, octets: int) -> None:
    header = encode_ip_header(connection_key(source, 1, destination, 2), octets)
    oracle = IP(src=str(source), dst=str(destination), id=0, flags="DF", ttl=64, proto=6, len=20 + octets)
    assert header == bytes(oracle)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), u16)
def test_any_ipv6_key_header_is_that_of_scapy(source: IPv6Address, destination: IPv6Address, octets: int) -> None:
    header = encode_ip_header(connection_key(source, 1, destination, 2), octets)
    assert header == bytes(IPv6(src=str(source), dst=str(destination), hlim=64, nh=6, plen=octets))


def test_ipv4_header_pinned_octet_by_octet() -> None:
    assert encode_ip_header(KEY_IPV4, 32) == bytes.fromhex("45000034 00004000 4006ae71 c612000a c6120024")


def test_ipv6_header_pinned_octet_by_octet() -> None:
    expected = "60000000 00200640" + CLIENT_IPV6.packed.hex() + VIP_IPV6.packed.hex()
    assert encode_ip_header(KEY_IPV6, 32) == bytes.fromhex(expected)
