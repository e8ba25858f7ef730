from __future__ import annotations

import ctypes
import errno
import struct

import pytest

from tcpha.errors import EdgeError
from tcpha.net import link

LRO = 1 << 15
OTHERS = 0x180  # receive and transmit VLAN offload


class Card:
    """The kernel's side of SIOCETHTOOL for one interface."""

    def __init__(self, flags: int, *, obeys: bool = True) -> None:
        self.flags = flags
        self.obeys = obeys

    def ioctl(self, _file: object, request: int, ifreq: bytes) -> int:
        assert request == 0x8946
        name, pointer = struct.unpack("16sP16x", ifreq)
        if name.rstrip(b"\0") != b"eth0":
            raise OSError(errno.ENODEV, "No such device")
        value = (ctypes.c_uint32 * 2).from_address(pointer)
        if value[0] == 0x25:
            value[1] = self.flags
        elif self.obeys:
            self.flags = value[1]
        return 0


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    played = Card(OTHERS | LRO)
    monkeypatch.setattr("fcntl.ioctl", played.ioctl)
    return played


def test_receive_offload_is_switched_alone(card: Card) -> None:
    assert link.merges_on_receive("eth0")
    link.set_merges_on_receive("eth0", False)
    assert card.flags == OTHERS
    assert not link.merges_on_receive("eth0")
    link.set_merges_on_receive("eth0", True)
    assert card.flags == OTHERS | LRO


def test_receive_offload_of_an_interface_that_does_not_obey_is_an_edge_error(card: Card) -> None:
    card.obeys = False
    with pytest.raises(EdgeError, match="eth0 stays on"):
        link.set_merges_on_receive("eth0", False)


def test_receive_offload_of_a_missing_interface(card: Card) -> None:
    assert not link.merges_on_receive("eth1")
    with pytest.raises(EdgeError, match="eth1"):
        link.set_merges_on_receive("eth1", False)
