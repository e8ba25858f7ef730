"""Configuration of the proxies that tcpha is compared with: HAProxy and nginx, one worker each. Pure.

Must not know how they are run or measured. What is not said here is their default, except that neither logs requests,
that limits on connections and bodies are out of the way, and that everything they write is in the lab's directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

CONNECTIONS_MAX = 4096
"""Of clients; a proxy opens twice as many files and needs no right to open more."""
_KEPT_CONNECTIONS = 64
"""To each server, by nginx; as many as any workload has clients, and more."""
_REQUESTS_PER_CONNECTION = 100_000
"""As the lab's servers have it: nobody reconnects in the middle of a run."""

_HAPROXY = """\
global
    nbthread 1
    maxconn {connections}

defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s

frontend bench
    bind {address}:{port}
{rules}
{backends}"""

_NGINX = """\
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {files};
pid "{directory}/{name}.pid.nginx";
error_log stderr warn;

events {{
    worker_connections {connections};
}}

http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path "{directory}/{name}-body";
    proxy_temp_path "{directory}/{name}-proxy";
    fastcgi_temp_path "{directory}/{name}-fastcgi";
    uwsgi_temp_path "{directory}/{name}-uwsgi";
    scgi_temp_path "{directory}/{name}-scgi";
    keepalive_requests {requests};

    map $request_uri $chosen {{
{rules}
    }}
{upstreams}
    server {{
        listen {address}:{port};
        location / {{
            proxy_pass http://$chosen;
{location}        }}
    }}
}}
"""
_NGINX_KEEPALIVE = """\
            proxy_http_version 1.1;
            proxy_set_header Connection "";
"""

Rules = Sequence[tuple[str, str]]
"""Regular expression searched in the request's target, and the name of a server; the first match wins."""


def haproxy(
    address: IPv4Address, port: int, rules: Rules, servers: Mapping[str, IPv4Address], server_port: int, *, reuse: bool
) -> str:
    """Text of haproxy.cfg; `reuse` sets `http-reuse always`, where the default is `safe`."""
    policy = "    http-reuse always\n" if reuse else ""
    return _HAPROXY.format(
        connections=CONNECTIONS_MAX,
        address=address,
        port=port,
        rules="\n".join(f"    use_backend {name} if {{ url -m reg '{pattern}' }}" for pattern, name in rules),
        backends="".join(
            f"\nbackend {name}\n{policy}    server {name} {server}:{server_port}\n" for name, server in servers.items()
        ),
    )


def haproxy_command(program: str, file: Path) -> list[str]:
    """Arguments that run HAProxy in the foreground."""
    return [program, "-db", "-f", str(file)]


def nginx(
    name: str,
    directory: Path,
    address: IPv4Address,
    port: int,
    rules: Rules,
    servers: Mapping[str, IPv4Address],
    server_port: int,
    *,
    reuse: bool,
) -> str:
    """Text of nginx.conf for a proxy; `reuse` keeps connections to the servers open.

    What it writes has names that begin with `name`, in `directory`.
    """
    kept = (
        f"        keepalive {_KEPT_CONNECTIONS};\n        keepalive_requests {_REQUESTS_PER_CONNECTION};\n"
        if reuse
        else ""
    )
    return _NGINX.format(
        name=name,
        directory=directory,
        address=address,
        port=port,
        files=4 * CONNECTIONS_MAX,
        connections=2 * CONNECTIONS_MAX,
        requests=_REQUESTS_PER_CONNECTION,
        rules="\n".join(f'        "~{pattern}" {server};' for pattern, server in rules),
        upstreams="".join(
            f"\n    upstream {server} {{\n        server {at}:{server_port};\n{kept}    }}\n"
            for server, at in servers.items()
        ),
        location=_NGINX_KEEPALIVE if reuse else "",
    )
