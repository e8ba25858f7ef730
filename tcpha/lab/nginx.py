"""Configuration of the lab's web server: an unmodified nginx. Pure but for finding the program.

Must not know that handoff exists: what nginx sees is what the tests and benchmarks measure. HTTP/2 in clear text has a
port of its own: before nginx 1.25.1, a port that is told to speak HTTP/2 without TLS speaks nothing else.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

PORT = 80
TLS_PORT = 443
HTTP2_PORT = 8080
OPEN_FILES_WANTED = 32768
_FILES_PER_CONNECTION = 2
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

_TEXT = """\
# Made by python -m tcpha.lab.
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {open_files};
pid "{directory}/nginx.pid";
error_log stderr warn;

events {{
    worker_connections {connections};
}}

http {{
    log_format lab '$remote_addr $remote_port $msec $status $body_bytes_sent "$request"';
    access_log "{directory}/access.log" lab;
    client_body_temp_path "{directory}/nginx-temporary/body";
    proxy_temp_path "{directory}/nginx-temporary/proxy";
    fastcgi_temp_path "{directory}/nginx-temporary/fastcgi";
    uwsgi_temp_path "{directory}/nginx-temporary/uwsgi";
    scgi_temp_path "{directory}/nginx-temporary/scgi";

    default_type application/octet-stream;
    types {{
        image/jpeg jpg;
        text/html  html;
    }}
    sendfile on;
    keepalive_requests 100000;
    keepalive_timeout 75;
    large_client_header_buffers 8 32k;
    client_max_body_size 0;
    add_header Server-Node {node} always;
{tls}
    server {{
        listen {port};
        listen [::]:{port} ipv6only=on;
{listeners}        root "{documents}";

        location = /client {{
            default_type text/plain;
            return 200 "$remote_addr";
        }}
        location /sink {{
            proxy_pass http://unix:{sink};
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_next_upstream off;
        }}
{echo}    }}
}}
"""

# What a variable does not have is empty, and such a header field is left out: over clear text all of them.
_TLS = """
    ssl_certificate "{certificate}";
    ssl_certificate_key "{key}";
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:1m;
    ssl_early_data on;
    add_header Tls-Version $ssl_protocol always;
    add_header Tls-Name $ssl_server_name always;
    add_header Tls-Alpn $ssl_alpn_protocol always;
    add_header Tls-Resumed $ssl_session_reused always;
    add_header Tls-Early-Data $ssl_early_data always;
"""

_LISTENERS = f"""\
        listen {TLS_PORT} ssl http2;
        listen [::]:{TLS_PORT} ipv6only=on ssl http2;
        listen {HTTP2_PORT} http2;
        listen [::]:{HTTP2_PORT} ipv6only=on http2;
"""

_ECHO = """\
        location = /ws {{
            proxy_pass http://unix:{echo};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
"""


@dataclass(frozen=True, slots=True)
class Further:
    """What nginx needs to serve TLS on `TLS_PORT`, HTTP/2 in clear text on `HTTP2_PORT`, and WebSocket at /ws."""

    certificate: Path
    key: Path
    echo: Path
    """The Unix socket of tcpha.lab.websocket."""


def find_program() -> str | None:
    """Path of nginx, also where PATH lacks the directories of system programs; None if it is not installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def configuration(
    node: str, directory: Path, documents: Path, sink: Path, open_files: int, further: Further | None = None
) -> str:
    """Text of nginx.conf for one back end.

    Everything nginx writes goes to `directory` (its subdirectory `nginx-temporary` must exist); `sink` is the Unix
    socket of tcpha.lab.sink. Each line of access.log begins with the peer's address and port. `open_files` is how many
    the worker may have open; it serves half as many connections. `further`: it speaks more than HTTP/1 on `PORT`; then
    answers over TLS say in header fields of which version it is, what names the client sent, and whether it resumed a
    session or sent early data.
    """
    return _TEXT.format(
        node=node,
        directory=directory,
        documents=documents,
        sink=sink,
        port=PORT,
        open_files=open_files,
        connections=open_files // _FILES_PER_CONNECTION,
        tls="" if further is None else _TLS.format(certificate=further.certificate, key=further.key),
        listeners="" if further is None else _LISTENERS,
        echo="" if further is None else _ECHO.format(echo=further.echo),
    )


def command(program: str, directory: Path, configuration_file: Path) -> list[str]:
    """Arguments that run nginx in the foreground with everything it writes below `directory`."""
    return [program, "-e", "stderr", "-p", str(directory), "-c", str(configuration_file)]
