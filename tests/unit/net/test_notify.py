"""The notice of readiness, at the socket of whoever asked for it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tcpha.net.notify import notify_ready


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_socket_is_named_it_gets_one_notice(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind("" if kind == "abstract" else f"/proc/self/cwd/{kind}")
        name = listener.getsockname()
        monkeypatch.setenv("NOTIFY_SOCKET", name if kind == "file" else "@" + name[1:].decode())
        notify_ready()
        assert listener.recv(100) == b"READY=1\n"
        with pytest.raises(BlockingIOError):
            listener.recv(100)


@pytest.mark.parametrize("name", [None, "", "relative", "vsock:2:1234", "/nonexistent/socket", "@nobody-listens-here"])
def test_nobody_listens_nothing_is_wrong(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if name is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify_ready()
