"""Which TCP socket of this host holds a connection, and its removal.

Asks for one exact tuple (SOCK_DIAG_BY_FAMILY without a dump: microseconds, whatever the number of sockets) and destroys
by the cookie of the answer. Knows nothing of flows. Format: sock_diag(7), linux/inet_diag.h.

The kernel looks for the connection first and falls back to the listener of its port, and SOCK_DESTROY destroys what is
found. So a listener is never returned here, and the cookie makes sure that nothing else than the socket found is hit.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from tcpha.errors import EdgeError, StartError
from tcpha.net.netlink import NLM_F_DUMP, NetlinkSocket, decode_attributes, encode_attribute
from tcpha.proto.ip import ConnectionKey, key_addresses, key_ports

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_REQUEST = struct.Struct("=BBBxI")  # inet_diag_req_v2 up to its id: family, protocol, extensions, states
_IDENTITY = struct.Struct("!HH16s16s")  # inet_diag_sockid up to its interface: ports, addresses
_PORTS = struct.Struct("!HH")
_INTERFACE_ANY = bytes(4)
_COOKIE_NONE = b"\xff" * 8
_STATE_OFFSET = 1  # in inet_diag_msg: the second octet
_COOKIE_OFFSET = 44  # in inet_diag_msg: 4 octets, then sockid, whose last 8 octets are the cookie
_ANSWER_OCTETS = 72
_ALL_STATES = 0xFFFFFFFF
_CONDITION = struct.Struct("=BBHII")  # inet_diag_bc_op: code, octets to go on, octets to leave; mark, mask
_BYTECODE = 1  # INET_DIAG_REQ_BYTECODE
_MARK_CONDITION = 10
_MARK = 15  # INET_DIAG_MARK
_NO_MARK = bytes(4)
_INFO = 2  # INET_DIAG_INFO
_RECEIVED_OFFSET = 128  # tcpi_bytes_received in tcp_info, 8 octets

TCP_ESTABLISHED = 1
TCP_SYN_RECEIVED = 3
TCP_TIME_WAIT = 6
TCP_LISTEN = 10


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A TCP socket of this host, at the moment of the answer; never a listener.

    state: as linux/tcp_states.h numbers them (1 ESTABLISHED ... 11 CLOSING), request sockets as 3 SYN-RECEIVED.
    family: AF_INET or AF_INET6, as asked for (an IPv4 connection of a dual-stack IPv6 listener is found as AF_INET).
    identity: 36 octets, ports and addresses as asked for; cookie: 8 octets, unique to the socket. mark: the firewall
    mark it bears, in TIME-WAIT that of the socket before, 0 if it has none or CAP_NET_ADMIN is missing. received: how
    many octets it has received in order, a FIN counts as one; 0 where there is no more than a four-tuple (SYN-RECEIVED,
    TIME-WAIT), and of sockets that were listed.
    """

    family: int
    state: int
    cookie: bytes
    identity: bytes
    mark: int = 0
    received: int = 0


class SocketDiagnostics:
    """Finds and destroys TCP sockets in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        """Raises: StartError if the kernel has no TCP socket diagnostics."""
        self._netlink = NetlinkSocket(_NETLINK_SOCK_DIAG)
        try:
            # A dump of no states: empty where there are diagnostics, an error where not. An exact question would be
            # answered with the same ENOENT in both cases.
            body = _encode(socket.AF_INET, bytes(_IDENTITY.size), bytes(8), states=0)
            self._netlink.request(_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body)
        except OSError as error:
            self._netlink.close()
            raise StartError(f"this kernel has no TCP socket diagnostics (INET_TCP_DIAG): {error}") from error

    def find(
        self,
        local_addr: IPv4Address | IPv6Address,
        local_port: int,
        remote_addr: IPv4Address | IPv6Address,
        remote_port: int,
    ) -> TcpSocket | None:
        """Return the socket that holds exactly this connection, in any state but LISTEN, or None.

        Raises: EdgeError if the kernel does not answer.
        """
        family = socket.AF_INET if local_addr.version == 4 else socket.AF_INET6
        identity = _IDENTITY.pack(local_port, remote_port, local_addr.packed, remote_addr.packed)
        try:
            body = _encode(family, identity, _COOKIE_NONE, extensions=1 << (_INFO - 1))
            answers = self._netlink.request(_SOCK_DIAG_BY_FAMILY, 0, body)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EdgeError(f"socket diagnostics: {error}") from error
        if not answers or len(answers[0].body) < _ANSWER_OCTETS:
            return None
        answer = answers[0].body
        cookie = answer[_COOKIE_OFFSET : _COOKIE_OFFSET + len(_COOKIE_NONE)]
        attributes = decode_attributes(answer, _ANSWER_OCTETS)
        mark = int.from_bytes(attributes.get(_MARK, _NO_MARK), sys.byteorder)
        received = attributes.get(_INFO, b"")[_RECEIVED_OFFSET : _RECEIVED_OFFSET + 8]
        found = TcpSocket(
            family, answer[_STATE_OFFSET], cookie, identity, mark, int.from_bytes(received, sys.byteorder)
        )
        return None if found.state == TCP_LISTEN else found

    def find_connection(self, key: ConnectionKey) -> TcpSocket | None:
        """The same for a four-tuple of the client's direction. Raises: EdgeError."""
        client, server = key_addresses(key)
        client_port, server_port = key_ports(key)
        return self.find(ip_address(server), server_port, ip_address(client), client_port)

    def destroy(self, found: TcpSocket) -> bool:
        """Make the socket disappear; return whether it is gone.

        True as well if it was gone already. False: a listener, which is never destroyed, or a kernel without
        INET_DIAG_DESTROY. A synchronised connection is reset: the kernel sends an RST to the peer.

        Raises: EdgeError if the right CAP_NET_ADMIN is missing or the kernel does not answer.
        """
        if found.state == TCP_LISTEN:
            return False
        try:
            self._netlink.request(_SOCK_DESTROY, 0, _encode(found.family, found.identity, found.cookie))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return True
            if error.errno == errno.EOPNOTSUPP:
                return False
            raise EdgeError(f"socket diagnostics: {error}") from error
        return True

    def marked(self, mark: int) -> list[TcpSocket]:
        """Return all connections whose socket bears a mark; not those in TIME-WAIT, and no listeners.

        An IPv4 connection of an IPv6 listener is of AF_INET6, its addresses in their IPv6 form. Needs CAP_NET_ADMIN.
        Raises: EdgeError.
        """
        states = _ALL_STATES & ~(1 << TCP_TIME_WAIT | 1 << TCP_LISTEN)
        condition = _CONDITION.pack(_MARK_CONDITION, _CONDITION.size, _CONDITION.size + 4, mark, 0xFFFFFFFF)
        found: list[TcpSocket] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _encode(family, bytes(_IDENTITY.size), bytes(8), states) + encode_attribute(_BYTECODE, condition)
            try:
                answers = self._netlink.request(_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body)
            except OSError as error:
                raise EdgeError(f"socket diagnostics: {error}") from error
            for answer in answers:
                octets = answer.body
                cookie = octets[_COOKIE_OFFSET : _COOKIE_OFFSET + len(_COOKIE_NONE)]
                identity = octets[4 : 4 + _IDENTITY.size]
                found.append(TcpSocket(family, octets[_STATE_OFFSET], cookie, identity, mark))
        return found

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()


def connection_of(found: TcpSocket) -> ConnectionKey:
    """Return the four-tuple of a socket, the client's direction; IPv4 addresses in their IPv6 form stay so."""
    octets = 4 if found.family == socket.AF_INET else 16
    local_port, remote_port, local, remote = _IDENTITY.unpack(found.identity)
    return ConnectionKey(remote[:octets] + local[:octets] + _PORTS.pack(remote_port, local_port))


def _encode(family: int, identity: bytes, cookie: bytes, states: int = _ALL_STATES, extensions: int = 0) -> bytes:
    """Layout: inet_diag_req_v2, 56 octets."""
    return _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, states) + identity + _INTERFACE_ANY + cookie
