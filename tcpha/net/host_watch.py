"""Sees whether what a process has put on its host is still there: its interface, virtual addresses, kernel settings.

Of links and addresses the kernel tells by itself (rtnetlink(7), groups of RTM_NEWLINK and RTM_DELADDR); of settings it
does not, so they are read. Changes nothing, and decides nothing (tcpha.upkeep does). netdevice(7).
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

from tcpha.errors import EdgeError
from tcpha.net import sysctl
from tcpha.net.footprint import ARP_IGNORE_SILENT, INHERITS_MARK, Plan, Role, holder_of, in_effect
from tcpha.net.netlink import NLM_F_DUMP, Message, NetlinkSocket, decode_attributes, name_of, notifications
from tcpha.upkeep import Interface, Loss, LostAddress, LostSetting

_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 16, 17, 20, 21, 22
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 1 << 0, 1 << 4, 1 << 8
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix, flags, scope, index
_IFLA_IFNAME = 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8913, 0x8927, 0x8933
_IFREQ = struct.Struct("=16s24s")
_INDEX, _FLAGS, _HARDWARE = struct.Struct("=i"), struct.Struct("=H"), struct.Struct("=H6s")
_IFF_UP = 1
_BURST = 256


class HostWatch:
    """One host as one process wants it, in the network namespace of the thread that makes this.

    Wait for `fileno()` to become readable, then call `read()`.
    """

    def __init__(self, role: Role, plan: Plan) -> None:
        """Raises: EdgeError."""
        self._role: Role = role
        self._plan = plan
        self._holders = {addr.packed: (str(addr), holder_of(role, addr, plan.iface)) for addr in plan.vaddrs}
        self._index = 0
        flags = socket.SOCK_CLOEXEC
        with ExitStack() as undo:
            try:
                self._asking = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags))
                self._questions = undo.enter_context(closing(NetlinkSocket(socket.NETLINK_ROUTE)))
                self._socket = undo.enter_context(
                    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | flags, socket.NETLINK_ROUTE)
                )
                self._socket.setblocking(False)
                self._socket.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
            except OSError as error:
                raise EdgeError(f"changes of interfaces and addresses are not told: {error.strerror}") from error
            undo.pop_all()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when links or addresses of the host changed."""
        return self._socket.fileno()

    def read(self) -> bool:
        """Take in at most some hundred of the notifications that wait; may one of them be about what is ours?"""
        concerned = False
        try:
            for message in notifications(self._socket, _BURST):  # None: some were lost, and nobody knows which
                concerned |= message is None or self._concerns(message)
        except OSError as error:
            raise EdgeError(f"changes of interfaces and addresses are not told: {error.strerror}") from error
        return concerned

    def interface(self) -> Interface | None:
        """Return the interface of the plan's name, None if there is none."""
        name = self._plan.iface.encode()
        try:
            (self._index,) = _INDEX.unpack_from(self._ask(_SIOCGIFINDEX, name))
            (flags,) = _FLAGS.unpack_from(self._ask(_SIOCGIFFLAGS, name))
            _, mac = _HARDWARE.unpack_from(self._ask(_SIOCGIFHWADDR, name))
        except OSError:
            return None
        return Interface(self._index, mac, bool(flags & _IFF_UP))

    def lost_addresses(self) -> list[Loss]:
        """Return those that the host does not hold as `Footprint.install` left them. Raises: EdgeError."""
        held: dict[bytes, set[int]] = {}
        try:
            for answer in self._questions.request(_RTM_GETADDR, NLM_F_DUMP, _IFADDRMSG.pack(0, 0, 0, 0, 0)):
                if (addr := _address_of(answer)) in self._holders:
                    held.setdefault(addr, set()).add(_IFADDRMSG.unpack_from(answer.body)[4])
        except OSError as error:
            raise EdgeError(f"the addresses of this host: {error}") from error
        return [
            loss
            for addr, (text, where) in self._holders.items()
            if (loss := self._loss_of(text, where, held.get(addr, set()), is_ipv4=len(addr) == 4)) is not None
        ]

    def lost_settings(self) -> list[Loss]:
        """Return those that do not do any more; of an interface that is gone there are none."""
        return [LostSetting(name) for name in self._settings()] if self._role == "be" else []

    def close(self) -> None:
        """Close everything."""
        self._socket.close()
        self._questions.close()
        self._asking.close()

    def _settings(self) -> Iterator[str]:
        plan = self._plan
        if plan.iface != "lo" and any(addr.version == 4 for addr in plan.vaddrs):
            ignore, announce = f"ipv4/conf/{plan.iface}/arp_ignore", f"ipv4/conf/{plan.iface}/arp_announce"
            with suppress(EdgeError):
                if in_effect(ignore) not in ARP_IGNORE_SILENT:
                    yield ignore
                if in_effect(announce) != "2":
                    yield announce
        with suppress(EdgeError):
            if plan.kernel_mark is not None and sysctl.read(INHERITS_MARK) != "1":
                yield INHERITS_MARK

    def _loss_of(self, text: str, where: str, indexes: set[int], *, is_ipv4: bool) -> Loss | None:
        """What is wrong with an address that these interfaces hold; None if nothing is."""
        try:
            index = socket.if_nametoindex(where)
        except OSError:
            index = 0
        if self._role == "be" and indexes - {index}:
            return LostAddress(text, where, name_of(min(indexes - {index})))
        # IPv4 answers ARP for an address on any interface; IPv6 only for one on the interface itself.
        is_held = bool(indexes) if is_ipv4 else index in indexes
        return None if is_held else LostAddress(text, where)

    def _concerns(self, message: Message) -> bool:
        if message.kind in (_RTM_NEWLINK, _RTM_DELLINK) and len(message.body) >= _IFINFOMSG.size:
            if _IFINFOMSG.unpack_from(message.body)[2] == self._index:
                return True
            name = decode_attributes(message.body, _IFINFOMSG.size).get(_IFLA_IFNAME, b"")
            return name.rstrip(b"\0") == self._plan.iface.encode()
        return message.kind in (_RTM_NEWADDR, _RTM_DELADDR) and _address_of(message) in self._holders

    def _ask(self, what: int, name: bytes) -> bytes:
        return fcntl.ioctl(self._asking, what, _IFREQ.pack(name, b""))[16:]


def _address_of(message: Message) -> bytes:
    if len(message.body) < _IFADDRMSG.size:
        return b""
    attributes = decode_attributes(message.body, _IFADDRMSG.size)
    return attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
