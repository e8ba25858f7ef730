"""The proxies' configurations say what they should: rules in order, one worker, reuse only where it is asked for."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bench import peers
from bench.contenders import RULES

ADDRESS = IPv4Address("198.18.0.23")
SERVERS = {"be1": IPv4Address("198.18.0.33"), "be2": IPv4Address("198.18.0.38")}


def haproxy(*, reuse: bool) -> list[str]:
    return [line.strip() for line in peers.haproxy(ADDRESS, 8001, RULES, SERVERS, 80, reuse=reuse).splitlines()]


def nginx(*, reuse: bool) -> list[str]:
    text = peers.nginx("proxy", Path("/somewhere"), ADDRESS, 8003, RULES, SERVERS, 80, reuse=reuse)
    return [line.strip() for line in text.splitlines()]


def test_haproxy_tries_the_rules_in_their_order() -> None:
    rules = [line for line in haproxy(reuse=False) if line.startswith("use_backend")]
    assert rules == ["use_backend be2 if { url -m reg 'jpg$' }", "use_backend be1 if { url -m reg '.*' }"]


def test_haproxy_has_one_thread_and_every_server() -> None:
    lines = haproxy(reuse=False)
    assert "nbthread 1" in lines
    assert "bind 198.18.0.23:8001" in lines
    assert {"server be1 198.18.0.33:80", "server be2 198.18.0.38:80"} <= set(lines)


@pytest.mark.parametrize("reuse", [False, True])
def test_haproxy_is_told_to_reuse_connections_only_as_a_variant(reuse: bool) -> None:
    assert haproxy(reuse=reuse).count("http-reuse always") == (len(SERVERS) if reuse else 0)


def test_nginx_tries_the_rules_in_their_order() -> None:
    lines = nginx(reuse=False)
    start = lines.index("map $request_uri $chosen {")
    assert lines[start + 1 : start + 4] == ['"~jpg$" be2;', '"~.*" be1;', "}"]


def test_nginx_has_one_worker_and_every_server() -> None:
    lines = nginx(reuse=False)
    assert "worker_processes 1;" in lines
    assert "listen 198.18.0.23:8003;" in lines
    assert {"server 198.18.0.33:80;", "server 198.18.0.38:80;"} <= set(lines)


@pytest.mark.parametrize("reuse", [False, True])
def test_nginx_is_told_to_keep_connections_only_as_a_variant(reuse: bool) -> None:
    lines = nginx(reuse=reuse)
    assert lines.count("keepalive 64;") == (len(SERVERS) if reuse else 0)
    assert ('proxy_set_header Connection "";' in lines) is reuse


def test_nginx_writes_only_below_its_directory() -> None:
    paths = [line for line in nginx(reuse=False) if "_path" in line or line.startswith("pid")]
    assert len(paths) == 6
    assert all('"/somewhere/proxy' in line for line in paths)


def test_nginx_has_braces_in_pairs() -> None:
    text = "\n".join(nginx(reuse=True))
    assert text.count("{") == text.count("}") > 0
