"""A file of ``key = value`` lines -> entries that remember where they stood.

Knows the grammar only, no key and no meaning of a value. The grammar is that of TCPHA-0.3's tcphafe.conf and
tcphabe.conf: one ``key = value`` a line, blanks around ``=`` free, blank lines and lines that begin with ``#`` ignored.
After a value a comment may follow if a blank stands before its ``#``; not after a key read verbatim (a pattern may hold
a ``#``). The text is UTF-8; a byte order mark and CRLF line ends are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcpha.errors import ConfigError

FILE_LIMIT_OCTETS: Final = 1 << 20
"""Longest file, in octets: far beyond any real one, it keeps a wrong path (a device, an image) from filling memory."""

_BLANKS: Final = " \t"
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_COMMENT: Final = re.compile(r"[ \t]#.*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``key = value`` line: both without the blanks around them, the value never empty.

    `line` counts from 1; `column` is where in the line the value begins, in characters, from 1.
    """

    key: str
    value: str
    line: int
    column: int


def read_entries(path: Path, verbatim: Collection[str] = ()) -> tuple[Entry, ...]:
    """Read every entry of a file, in file order.

    The values of keys in `verbatim` reach to the end of the line, ``#`` included.
    Raises: ConfigError (unreadable, too long, not UTF-8, a line that is no ``key = value``).
    """
    entries: list[Entry] = []
    for number, text in enumerate(_lines(path), start=1):
        control = _CONTROL.search(text)
        if control is not None:
            reason = f"control character U+{ord(control[0]):04X} in column {control.start() + 1}"
            raise ConfigError(path, number, reason)
        content = text.strip(_BLANKS)
        if content and not content.startswith("#"):
            entries.append(_entry(path, number, text, verbatim))
    return tuple(entries)


def _entry(path: Path, number: int, text: str, verbatim: Collection[str]) -> Entry:
    name, sign, rest = text.partition("=")
    key = name.strip(_BLANKS)
    if not sign or not _KEY.fullmatch(key):
        raise ConfigError(path, number, f"not of the form `key = value`: {text.strip(_BLANKS)[:60]!r}")
    if key not in verbatim:
        rest = _COMMENT.sub("", rest, count=1)
    value = rest.strip(_BLANKS)
    if not value:
        raise ConfigError(path, number, f"{key}: no value")
    return Entry(key, value, number, len(name) + 1 + rest.index(value) + 1)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            octets = file.read(FILE_LIMIT_OCTETS + 1)
    except OSError as error:
        raise ConfigError(path, None, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        # A path with a NUL in it.
        raise ConfigError(path, None, f"cannot be read: {error}") from error
    if len(octets) > FILE_LIMIT_OCTETS:
        raise ConfigError(path, None, f"longer than {FILE_LIMIT_OCTETS} octets: this is no configuration file")
    # Not str.splitlines(): it would also split at U+2028, form feeds and more, and count lines as no editor does.
    return [_decoded(path, number, line) for number, line in enumerate(_raw_lines(octets), start=1)]


def _raw_lines(octets: bytes) -> list[bytes]:
    return [line.removesuffix(b"\r") for line in octets.removeprefix(_BYTE_ORDER_MARK).split(b"\n")]


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode("utf-8")) + 1
        reason = f"not UTF-8: octet 0x{line[error.start]:02x} in column {column}; save the file as UTF-8"
        raise ConfigError(path, number, reason) from None
