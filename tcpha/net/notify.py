"""Tells whoever started the process that it serves now. sd_notify(3): one datagram to the socket in NOTIFY_SOCKET.

Must not fail: who asked to be told and does not listen is no reason to stop serving.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"
READY = b"READY=1\n"


def notify_ready() -> None:
    """Say it once; nothing happens where nobody asked."""
    name = os.environ.get(VARIABLE, "")
    if not name.startswith(("/", "@")):
        return
    address = "\0" + name[1:] if name.startswith("@") else name  # an abstract address, unix(7)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
        speaker.setblocking(False)
        speaker.sendto(READY, address)
