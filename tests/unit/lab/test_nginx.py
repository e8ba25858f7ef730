from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tcpha.lab import nginx


def test_configuration_is_one_that_nginx_accepts(tmp_path: Path) -> None:
    program = nginx.find_program()
    if program is None:
        pytest.skip("nginx is not installed")
    if os.geteuid() != 0:
        pytest.skip("nginx may be set to run as root by root only")
    (tmp_path / "nginx-temporary").mkdir()
    file = tmp_path / "nginx.conf"
    file.write_text(nginx.configuration("be1", tmp_path, tmp_path / "documents", tmp_path / "sink.socket", 512))
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
