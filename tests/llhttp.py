"""What llhttp reads of a request (httptools): a peer of the package's own reader, which shares no code with it."""

from __future__ import annotations

import contextlib

import httptools


class Reading:
    """What llhttp reads."""

    def __init__(self, octets: bytes) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade):  # a complete head that asks for another protocol
            parser.feed_data(octets)
        self.method: bytes = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True
