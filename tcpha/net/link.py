"""Packets sent to a neighbour on the link, whatever their IP destination, and one property of the link itself.

Knows nothing of what is in a packet beyond its version. packet(7); RFC 894 and RFC 2464 for the Ethernet framing;
linux/ethtool.h for large receive offload.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct

from tcpha.errors import EdgeError, StartError
from tcpha.net.raw import set_send_buffer

_SEND_BUFFER_OCTETS = 4 << 20
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_ETHERTYPE_IPV4, _ETHERTYPE_IPV6 = b"\x08\x00", b"\x86\xdd"

_SIOCETHTOOL = 0x8946
_ETHTOOL_GFLAGS, _ETHTOOL_SFLAGS = 0x25, 0x26
_ETH_FLAG_LRO = 1 << 15
_ETHTOOL_VALUE = struct.Struct("=II")  # command, flags
_IFREQ = struct.Struct("16sP16x")  # name, pointer to the value


class LinkSender:
    """Sends IP packets out of one Ethernet interface to a MAC address, unchanged. Receives nothing.

    `send` raises nothing: `errors` counts what was not sent by the name of the error (EMSGSIZE: larger than the MTU;
    ENETDOWN: the interface is down; EAGAIN, ENOBUFS: the send buffer or the interface's queue is full; EINVAL: no
    packet; ENXIO: the interface was removed: one that is made again is another one, see `follow`).
    """

    def __init__(self, iface: str) -> None:
        """Open the socket in the network namespace of the calling thread and read the interface's own MAC.

        Raises: StartError if there is no such interface, it is not Ethernet, or the right CAP_NET_RAW is missing.
        """
        self.errors: dict[str, int] = {}
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError as error:
            raise StartError("packets cannot be sent on a link: the right CAP_NET_RAW is missing") from error
        self._iface = iface
        try:
            self.follow()
        except StartError:
            self._socket.close()
            raise
        set_send_buffer(self._socket, _SEND_BUFFER_OCTETS)

    def follow(self) -> None:
        """Send by the interface that has this name now, and by its own MAC of now.

        Raises: StartError if there is no such interface, or it is not Ethernet.
        """
        try:
            self._socket.bind((self._iface, 0))  # protocol 0: nothing is received
        except OSError as error:
            raise StartError(f"there is no interface {self._iface}") from error
        _, _, _, hardware, own = self._socket.getsockname()
        if hardware not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
            raise StartError(f"{self._iface} is not an Ethernet interface")
        self._tail4 = own + _ETHERTYPE_IPV4
        self._tail6 = own + _ETHERTYPE_IPV6

    def send(self, mac: bytes, packet: bytes) -> None:
        """Send one whole IP packet to the neighbour `mac` (6 octets), without waiting."""
        try:
            # One send of a joined frame costs less than sendmsg of two parts.
            self._socket.send(mac + (self._tail4 if packet[0] >> 4 == 4 else self._tail6) + packet)
        except OSError as error:
            name = errno.errorcode.get(error.errno or errno.EINVAL, str(error.errno))
            self.errors[name] = self.errors.get(name, 0) + 1
        except IndexError:
            self.errors["EINVAL"] = self.errors.get("EINVAL", 0) + 1

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def merges_on_receive(iface: str) -> bool:
    """Return whether large receive offload is on; False for an interface that does not know of it.

    A packet that was merged this way cannot be sent on as it came.
    """
    try:
        return bool(_ethtool(iface, _ETHTOOL_GFLAGS, 0) & _ETH_FLAG_LRO)
    except OSError:
        return False


def set_merges_on_receive(iface: str, on: bool) -> None:
    """Switch large receive offload.

    Raises: EdgeError if the interface does not obey.
    """
    try:
        flags = _ethtool(iface, _ETHTOOL_GFLAGS, 0)
        _ethtool(iface, _ETHTOOL_SFLAGS, flags | _ETH_FLAG_LRO if on else flags & ~_ETH_FLAG_LRO)
    except OSError as error:
        raise EdgeError(f"large receive offload of {iface} cannot be switched: {error}") from error
    if merges_on_receive(iface) != on:
        raise EdgeError(f"large receive offload of {iface} stays {'off' if on else 'on'}")


def _ethtool(iface: str, command: int, flags: int) -> int:
    """Do one SIOCETHTOOL request whose value is a word of flags, and return that word."""
    value = array.array("B", _ETHTOOL_VALUE.pack(command, flags))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as carrier:
        fcntl.ioctl(carrier, _SIOCETHTOOL, _IFREQ.pack(iface.encode(), value.buffer_info()[0]))
    return int(_ETHTOOL_VALUE.unpack(value)[1])
