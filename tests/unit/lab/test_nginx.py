from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tcpha.lab import certificate, nginx


@pytest.mark.parametrize("protocols", [False, True])
def test_configuration_is_one_that_nginx_accepts(tmp_path: Path, protocols: bool) -> None:
    program = nginx.find_program()
    if program is None:
        pytest.skip("nginx is not installed")
    if os.geteuid() != 0:
        pytest.skip("nginx may be set to run as root by root only")
    (tmp_path / "nginx-temporary").mkdir()
    file = tmp_path / "nginx.conf"
    further = nginx.Further(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "echo.socket")
    if protocols:
        if certificate.find_program() is None:
            pytest.skip("openssl is not installed")
        certificate.make(further.certificate, further.key, ())
    text = nginx.configuration(
        "be1", tmp_path, tmp_path / "documents", tmp_path / "sink.socket", 512, further if protocols else None
    )
    file.write_text(text)
    words = [*nginx.command(program, tmp_path, file), "-t"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


def test_configuration_names_its_node_and_keeps_everything_in_its_directory() -> None:
    text = nginx.configuration("be7", Path("/lab/be7"), Path("/lab/documents"), Path("/lab/be7/sink.socket"), 512)
    assert "add_header Server-Node be7 always;" in text
    assert "worker_rlimit_nofile 512;" in text
    assert "worker_connections 256;" in text
    paths = [word.strip('";') for word in text.split() if word.startswith(('"/', "http://unix:"))]
    assert len(paths) == 9
    assert all(path.removeprefix("http://unix:").startswith("/lab/") for path in paths)


def test_configuration_of_more_protocols_only_adds_to_the_plain_one() -> None:
    paths = Path("/lab/be7"), Path("/lab/documents"), Path("/lab/be7/sink.socket")
    further = nginx.Further(Path("/lab/tls.crt"), Path("/lab/tls.key"), Path("/lab/be7/echo.socket"))
    plain = nginx.configuration("be7", *paths, 512).splitlines()
    more = nginx.configuration("be7", *paths, 512, further).splitlines()
    rest = iter(more)
    assert all(line in rest for line in plain if line.strip()), "a line is missing, or is not where it was"
    assert not any("ssl" in line or "http2" in line or "echo" in line for line in plain)
    assert [line.strip() for line in more if "listen" in line and "[::]" not in line] == [
        "listen 80;",
        "listen 443 ssl http2;",
        "listen 8080 http2;",
    ]


def test_program_is_found_where_only_the_system_directories_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nginx"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(nginx, "_SBIN", str(tmp_path))
    assert nginx.find_program() == str(program)
    program.unlink()
    assert nginx.find_program() is None
