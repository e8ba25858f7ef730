"""What is fuzzed: a name, where the function stands, and what helps a fuzzer to get into it.

Nothing of the package is imported here: a fuzzer must have its instruments in place before anything is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CORPUS = FOLDER / "corpus"
"""Octets that together reach all that was ever reached; kept small, replayed by every test run."""
MENDED = FOLDER / "mended"
"""Octets that once were a finding; replayed by every test run, for good."""
CRASHES = FOLDER / "crashes"
"""Findings that nobody has mended yet."""


@dataclass(frozen=True, slots=True)
class Target:
    """A function that takes any octets, and raises if something is wrong."""

    name: str
    module: str
    max_octets: int
    is_program: bool = False
    """The octets are records of events (`records`)."""
    words: tuple[bytes, ...] = ()
    """What a fuzzer would take long to guess."""

    def load(self) -> Callable[[bytes], None]:
        """Import the function."""
        function: Callable[[bytes], None] = getattr(import_module(f"tests.fuzz.{self.module}"), self.name)
        return function

    def inputs(self, folder: Path) -> Iterator[Path]:
        """The files of this target in one of the folders, in order."""
        return iter(sorted(path for path in (folder / self.name).glob("*") if path.is_file()))


_HTTP = (
    b"GET / HTTP/1.1\r\n", b"HEAD ", b"POST ", b"CONNECT ", b"OPTIONS * ", b"PRI * HTTP/2.0\r\n", b"HTTP/1.0\r\n",
    b"\r\n\r\n",
    b"Host: a\r\n", b"Host:", b"http://", b"[::1]:80", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"\x16\x03\x01",
)  # fmt: skip
_HTTP2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01", b"\0\0\x05\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01a", b"\x82", b"\x84", b"\x86",
    b"\0\0\x01\x09\x04\0\0\0\x01\x84",
)  # fmt: skip
_TLS = (
    b"\x16\x03\x01\0\x01", b"\x01\0\0", b"\x03\x03", b"\0\0\0\x0a\0\x08\0\0\x05a.net", b"\0\x10\0\x05\0\x03\x02h2",
)  # fmt: skip
_CONFIG = (
    b"raddr = 198.18.0.33\n", b"vaddr = 198.18.0.36\n", b"vaddr = 2001:db8::24\n", b"vport = 80\n",
    b"server = 198.18.0.33 666\n", b"server = 2001:db8::33 666\n", b"fe = 198.18.0.23 666\n",
    b"rule = 198.18.0.33 .*\n", b"uaddr = 198.18.0.39\n", b"id = 7\n", b"window_scale = none\n", b"mss = 1460\n",
    b"sack = no\n", b"secret = /etc/tcpha/secret\n", b"iface = eth0\n", b"idle_time = 250ms\n", b"max_flows = 16k\n",
    b"mark = 0x7c0a\n", b"log = debug\n", b"forward = tunnel\n", b"ack_delay = 0\n", b" # comment\n", b"\xef\xbb\xbf",
)  # fmt: skip
_PATTERN = (
    b"balance=rr ", b"balance=least ", b"balance=hash:client ", b"method=", b"target=", b"path=", b"query=", b"host=",
    b"header.x=", b"cookie.a=", b"sni=", b"alpn=h2", b"octets=", b"port=80", b"client=192.0.2.0/24,2001:db8::1",
    b"198.18.0.33 ", b"198.18.0.33,198.18.0.38 ", b"2001:db8::33 ", b".*", b"jpg$", b"(?i)", b"(?:", b"(?P<a>", b"(?=",
    b"(?<!", b"{2,}", b"{1000}", b"[[:alpha:]]", b"\\p{L}", b"(?R)", b"(?1)", b"(?e)", b"{e<=1}", b"\\L<a>", b"*+",
    b"\\X",
)  # fmt: skip
_RULES = (
    b"*raw\n", b"*mangle\n", b":PREROUTING ACCEPT [0:0]\n", b"COMMIT\n", b"-A PREROUTING -p tcp ",
    b"-m comment --comment ",
    b'"tcpha fe"', b'"tcpha be"', b" -j NFQUEUE --queue-num 660\n", b"\\\"", b"'",
)  # fmt: skip
_OPTIONS = (
    b"\x02\x04\x05\xb4", b"\x04\x02", b"\x03\x03\x07", b"\x01\x01\x08\x0a", b"\x08\x0a", b"\x05\x0a", b"\x05\x12",
    b"\x45\x00", b"\x60\x00\x00\x00", b"\x06\x40",
)  # fmt: skip
_SEALED = (b"TH\x01",)
_SECRET = (b"0 ", b"255 ", b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", b"#", b"\n")

_ALL = (
    Target("segment", "segments", 200, words=_OPTIONS),
    Target("options", "segments", 60, words=_OPTIONS),
    Target("translator", "segments", 200, words=_OPTIONS),
    Target("icmp", "segments", 200, words=_OPTIONS),
    Target("tunnel", "segments", 200, words=_OPTIONS),
    Target("datagram", "messages", 300, words=_SEALED),
    Target("sealed", "messages", 1200, words=_SEALED),
    Target("message", "messages", 1200),
    Target("dissect", "layers", 300, words=_SEALED),
    Target("http1", "requests", 600, words=_HTTP),
    Target("http2", "requests", 600, words=_HTTP2),
    Target("tls", "requests", 600, words=_TLS),
    Target("first_octets", "requests", 600, words=(*_HTTP, *_HTTP2, *_TLS)),
    Target("config", "texts", 1000, words=_CONFIG),
    Target("rules", "texts", 300, words=(*_PATTERN, *_HTTP)),
    Target("secret", "texts", 300, words=_SECRET),
    Target("footprint", "texts", 500, words=_RULES),
    Target("netlink", "kernel", 300),
    Target("front_end", "front_end", 800, is_program=True),
    Target("back_end", "back_end", 800, is_program=True),
)
TARGETS = {target.name: target for target in _ALL}
