"""Every exception of the package.

Three audiences, three branches: a person at start (`ConfigError`, `StartError`: exit status 2), the packet path
(`WireError`: count, drop, go on), whoever called the kernel (`EdgeError`). An unwelcome but legal segment is no
exception: RFC 9293 prescribes an acknowledgement, a reset or silence for it, so it is an action of a core. Nor is a
peer that says no: that is a message.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class TcphaError(Exception):
    """Base of every error of this package."""


class ConfigError(TcphaError):
    """A configuration file that cannot be used.

    Shown to a person as ``FILE:LINE: reason`` (``FILE: reason`` where no single line is at fault); exit status 2.
    """

    def __init__(self, file: Path | str, line: int | None, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}" if line is not None else f"{file}: {reason}")
        self.file = Path(file)
        self.line = line
        self.reason = reason


class StartError(TcphaError):
    """A fault at start that no line of a file explains: missing rights, a port in use, no iptables. Exit status 2."""


class WireError(TcphaError):
    """Octets that are not what they should be. Never ends the process: count, drop, go on.

    `offset` is where in the packet or message the fault was found, in octets.
    """

    counter: ClassVar[str] = "malformed"
    """Which counter of refused packets it raises."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(f"{reason} (octet {offset})")
        self.reason = reason
        self.offset = offset


class TruncatedError(WireError):
    """Fewer octets than a header or a length field promises."""


class FragmentError(WireError):
    """A fragment of an IP packet."""

    counter = "fragments"


class ExtraHeaderError(WireError):
    """IPv4 options, or IPv6 extension headers."""

    counter = "extra_headers"


class ChecksumError(WireError):
    """A checksum that does not fit."""


class OptionError(WireError):
    """A TCP option whose length is impossible (RFC 9293, 3.1)."""


class HandoffFormatError(WireError):
    """A handoff message that does not follow docs/wire.md."""


class HandoffVersionError(WireError):
    """A handoff message of a version this process does not speak."""


class HandoffAuthError(WireError):
    """A handoff message whose tag, epoch, sequence or sender is not accepted."""


class EdgeError(TcphaError):
    """An `OSError` at tcpha/net, chained with ``from``."""
