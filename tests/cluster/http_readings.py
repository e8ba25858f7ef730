"""What two readers of HTTP/1 understand of one connection, in the same words, and where they contradict each other.

One is tcpha's, which reads a head; where the content ends follows from what it lets pass, by RFC 9112, 6.3, written
here as plainly as it stands there. The other is nginx, which tells in its log what it understood. Both may refuse; what
both accept they must understand alike, and neither may see a request where the other sees content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tcpha.proto.inspect import NEED_MORE, Inspection, NotMine, Refusal, Request
from tests.cluster.hostile_requests import AFTER

CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid "{directory}/nginx.pid";
error_log "{directory}/error.log" crit;

events {{
    worker_connections 1024;
}}

http {{
    log_format understood escape=json '{{"port": "$remote_port", "status": "$status", "method": "$request_method", '
        '"host": "$host", "target": "$request_uri", "path": "$uri", "length": "$content_length", '
        '"coding": "$http_transfer_encoding", "connection": "$connection_is"}}';
    access_log "{directory}/access.log" understood;
    client_body_temp_path "{directory}/body";
    proxy_temp_path "{directory}/proxy";
    fastcgi_temp_path "{directory}/fastcgi";
    uwsgi_temp_path "{directory}/uwsgi";
    scgi_temp_path "{directory}/scgi";
    client_max_body_size 0;
    lingering_close off;

    server {{
        listen 127.0.0.1:{port};
        server_name "";
        # asked for when it is known, and before the log, for which every connection is closed
        set $connection_is $sent_http_connection;
        return 200 "";
    }}
}}
"""
"""An nginx as it comes, except that it answers everything, and ends a connection no earlier than it writes its log."""
SERVED = 200
_READ_BY_NGINX = (SERVED, 405)
"""405: it has read the request, but does not serve the method."""

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILERS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")
_NEEDS_NO_NORMALISING = re.compile(rb"(?!.*(?:%|//|/\.))/.*")

Inspect = Callable[[bytes], Inspection]


@dataclass(frozen=True, slots=True)
class Understood:
    """One request as a reader understands it."""

    method: bytes
    host: bytes
    """In lower case, without a port; empty: none."""
    target: bytes
    """Path and query as sent."""
    path: bytes | None
    """The path, if it is one that nobody normalises."""
    length: bytes | None
    """Content-Length; empty: none; None: the content is in chunks, which nginx counts together."""
    coding: bytes
    """Transfer-Encoding; empty: none."""
    octets: bytes = b""
    """Of the head; not known of nginx."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The requests of a connection, as many as tcpha reads one after the other."""

    requests: tuple[Understood, ...]
    is_open: bool
    """What follows the last of them is refused, or nobody knows where its content ends: anybody may read more."""
    reason: str
    """Why the first request was refused; empty: it was not."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of nginx's log."""

    port: int
    status: int
    is_last: bool
    """nginx reads no more from this connection."""
    understood: Understood


def ours(octets: bytes, inspect: Inspect) -> Ours:
    """Read a connection to its end."""
    requests: list[Understood] = []
    start = 0
    while start < len(octets):
        found = inspect(octets[start:])
        if not isinstance(found, Request):
            reason = "" if found is NEED_MORE or requests else _reason(found)
            return Ours(tuple(requests), found is not NEED_MORE, reason)
        requests.append(_understood(found))
        content_start = start + found.head_octets
        end = _content_end(found, octets, content_start)
        if end is None:
            return Ours(tuple(requests), is_open=True, reason="")
        start = end
    return Ours(tuple(requests), is_open=False, reason="")


def lines(log: str) -> Iterable[Line]:
    """Read nginx's log, which holds octets above 0x7e as they came: `log` is decoded as latin-1."""
    for text in log.splitlines():
        values = {name: value.encode("latin-1") for name, value in json.loads(text).items()}
        target = values["target"] if values["target"].startswith(b"/") else b"/" + values["target"]
        understood = Understood(
            values["method"], values["host"], target, values["path"], values["length"], values["coding"]
        )
        yield Line(int(values["port"]), int(values["status"]), values["connection"] != b"keep-alive", understood)


def contradiction(ours: Ours, nginx: list[Line]) -> str | None:
    """Say how the two contradict each other; None: they do not, though one may refuse what the other accepts."""
    accepted = 0
    for line in nginx:
        if line.status not in _READ_BY_NGINX:
            break
        if accepted == len(ours.requests):
            return None if ours.is_open else f"request {accepted + 1} is seen by nginx alone: {line.understood}"
        if differing := _difference(ours.requests[accepted], line.understood):
            return f"request {accepted + 1}: {differing}"
        accepted += 1
    if accepted == len(ours.requests):
        return None
    refused = accepted < len(nginx)
    if refused and accepted and ours.requests[accepted].octets == AFTER:
        return f"request {accepted + 1} is what nobody refuses, but nginx: it stands elsewhere for it"
    if not refused and not (nginx and nginx[-1].is_last):
        return f"request {accepted + 1} is not seen by nginx: {ours.requests[accepted]}"
    return None


def _reason(found: Inspection) -> str:
    return found.reason if isinstance(found, Refusal) else "not HTTP" if isinstance(found, NotMine) else "another"


def _understood(request: Request) -> Understood:
    path, coding = request.path or b"", request.header(b"transfer-encoding")
    return Understood(
        request.method,
        request.host or b"",
        path if request.query is None else path + b"?" + request.query,
        path if _NEEDS_NO_NORMALISING.fullmatch(path) else None,
        None if coding is not None else request.header(b"content-length") or b"",
        coding or b"",
        request.octets[: request.head_octets],
    )


def _difference(one: Understood, other: Understood) -> str | None:
    for name in ("method", "host", "target", "path", "length", "coding"):
        mine, its = getattr(one, name), getattr(other, name)
        if mine is not None and mine != its:
            return f"{name}: {mine!r}, but nginx {its!r}"
    return None


def _content_end(request: Request, octets: bytes, start: int) -> int | None:
    """Where the next request begins (RFC 9112, 6.3); None: nobody knows."""
    if request.header(b"transfer-encoding") is not None:
        return _chunks_end(octets, start)
    return start + int(request.header(b"content-length") or b"0")


def _chunks_end(octets: bytes, start: int) -> int | None:
    """RFC 9112, 7.1; None: the chunks are not well formed, or do not end."""
    while size := _CHUNK_SIZE.match(octets, start):
        octets_in_chunk = int(size[1], 16)
        if octets_in_chunk == 0:
            trailers = _TRAILERS.match(octets, size.end())
            return trailers.end() if trailers else None
        start = size.end() + octets_in_chunk + 2
        if octets[start - 2 : start] != b"\r\n":
            return None
    return None
