"""Configuration of the lab's web server: an unmodified nginx. Pure but for finding the program.

Must not know that handoff exists: what nginx sees is what the tests and benchmarks measure.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PORT = 80
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

    server {{
        listen {port};
        listen [::]:{port} ipv6only=on;
        root "{documents}";

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
    }}
}}
"""


def find_program() -> str | None:
    """Path of nginx, also where PATH lacks the directories of system programs; None if it is not installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def configuration(node: str, directory: Path, documents: Path, sink: Path, open_files: int) -> str:
    """Text of nginx.conf for one back end.

    Everything nginx writes goes to `directory` (its subdirectory `nginx-temporary` must exist); `sink` is the Unix
    socket of tcpha.lab.sink. Each line of access.log begins with the peer's address and port. `open_files` is how many
    the worker may have open; it serves half as many connections.
    """
    return _TEXT.format(
        node=node,
        directory=directory,
        documents=documents,
        sink=sink,
        port=PORT,
        open_files=open_files,
        connections=open_files // _FILES_PER_CONNECTION,
    )


def command(program: str, directory: Path, configuration_file: Path) -> list[str]:
    """Arguments that run nginx in the foreground with everything it writes below `directory`."""
    return [program, "-e", "stderr", "-p", str(directory), "-c", str(configuration_file)]
