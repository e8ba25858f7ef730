"""Packets that the kernel dropped before a socket was read: its receive buffer was full, or their checksum was wrong.

Asked for when somebody wants the number (SO_MEMINFO, Linux 4.12), so that no packet costs anything for it, as an
SO_RXQ_OVFL message beside each one would. socket(7); linux/sock_diag.h.
"""

from __future__ import annotations

import socket
import struct

_SO_MEMINFO = 55
_MEMINFO = struct.Struct("@9I")
_DROPS = 8  # SK_MEMINFO_DROPS


def dropped_by_kernel(opened: socket.socket) -> int:
    """Return how many packets for this socket were dropped since it was opened, modulo 2^32; 0 where nobody counts."""
    try:
        values = opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return 0
    return int(_MEMINFO.unpack(values)[_DROPS]) if len(values) == _MEMINFO.size else 0
