from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tcpha
from tcpha.errors import StartError
from tcpha.lab import nginx, programs, redis
from tcpha.lab.addressing import plan
from tcpha.lab.blueprint import Blueprint
from tcpha.lab.configuration import Settings
from tcpha.lab.node import Node


def node(directory: Path, name: str = "be1") -> Node:
    return Node(name, f"lab-{name}", directory, None, None)


@pytest.mark.parametrize(("name", "role"), [("fe", "fe"), ("be1", "be"), ("be12", "be")])
def test_engine_of_a_node_runs_this_package_with_this_interpreter(tmp_path: Path, name: str, role: str) -> None:
    program = programs.engine(node(tmp_path, name))
    file = str(tmp_path / f"tcpha{role}.conf")
    assert list(program.arguments) == [sys.executable, "-m", f"tcpha.{role}", "-c", file]
    assert program.environment["PYTHONPATH"].split(":")[0] == str(Path(tcpha.__file__).parent.parent)


def test_servers_of_a_lab_without_are_none(tmp_path: Path) -> None:
    assert programs.servers(node(tmp_path), Blueprint(2, None, "")) == {}


def test_servers_of_a_lab_with_nginx_are_nginx_and_the_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "find_program", lambda: "/somewhere/nginx")
    found = programs.servers(node(Path("/run/lab/be1")), Blueprint(2, "nginx", "/documents"))
    assert list(found) == ["sink", "server"]
    assert found["server"].arguments[0] == "/somewhere/nginx"
    assert found["sink"].arguments[-1] == "/run/lab/be1/sink.socket"


def test_servers_of_a_lab_with_protocols_are_the_echo_and_redis_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "find_program", lambda: "/somewhere/nginx")
    monkeypatch.setattr(redis, "find_program", lambda: "/somewhere/redis-server")
    blueprint = Blueprint(2, "nginx", "/documents", protocols=True)
    found = programs.servers(node(Path("/run/lab/be1")), blueprint)
    assert list(found) == ["sink", "echo", "redis", "server"]
    assert list(found["echo"].arguments)[1:] == ["-m", "tcpha.lab.websocket", "/run/lab/be1/echo.socket"]
    assert found["redis"].arguments[0] == "/somewhere/redis-server"


def test_servers_without_redis_installed_are_refused_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "find_program", lambda: "/somewhere/nginx")
    monkeypatch.setattr(redis, "find_program", lambda: None)
    assert programs.servers(node(Path("/lab/be1")), Blueprint(2, "nginx", "/documents"))
    with pytest.raises(StartError, match="redis-server is not installed"):
        programs.servers(node(Path("/lab/be1")), Blueprint(2, "nginx", "/documents", protocols=True))


def test_servers_without_nginx_installed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "find_program", lambda: None)
    with pytest.raises(StartError, match="nginx is not installed"):
        programs.servers(node(Path("/lab/be1")), Blueprint(2, "nginx", "/documents"))


def test_servers_in_a_directory_too_deep_for_a_socket_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "find_program", lambda: "/somewhere/nginx")
    with pytest.raises(StartError, match="too long for the path of a Unix socket"):
        programs.servers(node(Path("/" + "x" * 100)), Blueprint(2, "nginx", "/documents"))


def test_servers_of_the_users_are_split_as_a_shell_does_and_told_where_they_are() -> None:
    found = programs.servers(node(Path("/lab/be1")), Blueprint(2, "sh -c 'a b'", "/documents"))
    assert found["server"].arguments == ["sh", "-c", "a b"]
    assert found["server"].environment["TCPHA_NODE"] == "be1"
    assert found["server"].environment["TCPHA_DOCUMENTS"] == "/documents"


def test_secret_written_is_for_its_owner_only_and_each_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = programs.write_secret(tmp_path / "a"), programs.write_secret(tmp_path / "b")
    assert first.stat().st_mode & 0o777 == 0o600
    assert first.read_text() != second.read_text()


def test_front_end_of_a_users_file_in_a_routed_lab_forwards_by_tunnel(tmp_path: Path) -> None:
    file = tmp_path / "mine.conf"
    file.write_text("raddr = 198.18.0.23\n")
    fe = node(tmp_path, "fe")
    programs.write_front_end(plan(2, routed=True), fe, tmp_path / "secret", Settings(), file)
    assert "\nforward = tunnel\n" in (tmp_path / "tcphafe.conf").read_text()
    programs.write_front_end(plan(2), fe, tmp_path / "secret", Settings(), file)
    assert "forward" not in (tmp_path / "tcphafe.conf").read_text()
