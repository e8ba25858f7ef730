"""What is written before the children start: the configuration, the secret's copy, and who may read them."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tcpha.config import load_front_end
from tcpha.container import preparation
from tcpha.container.preparation import agent_command, prepare, server_command
from tcpha.errors import ConfigError, StartError
from tcpha.secret import load_keyring

KEYS = "0 " + "ab" * 32 + "\n"
ME = "root" if os.geteuid() == 0 else "nobody"


@pytest.fixture(autouse=True)
def _own_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no user `tcpha`."""
    monkeypatch.setattr(preparation, "AGENT_USER", ME)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    secret = tmp_path / "mounted"
    secret.write_text(KEYS)
    secret.chmod(0o600)
    return {
        "TCPHA_RADDR": "192.0.2.23",
        "TCPHA_VADDR": "192.0.2.36",
        "TCPHA_SERVERS": "192.0.2.33",
        "TCPHA_RULES": "192.0.2.33 .*",
        "TCPHA_STATE": str(tmp_path / "run"),
        "TCPHA_SECRET_FILE": str(secret),
    }


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_variables_are_given_the_agents_file_loads_with_its_own_copy_of_the_secret(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    run = tmp_path / "run"
    prepared = prepare("fe", environment, tmp_path / "etc", run)
    assert prepared.warnings == ()
    config = load_front_end(prepared.file)
    assert config.secret == run / "secret"
    assert load_keyring(config.secret).signing.octets == bytes.fromhex("ab" * 32)
    assert {path.name: mode_of(path) for path in run.iterdir()} == {
        "secret": 0o600,
        "tcphafe.conf": 0o600,
        "health.json": 0o600,
    }
    assert mode_of(run) == 0o700


def test_container_starts_again_what_was_there_is_replaced(tmp_path: Path, environment: dict[str, str]) -> None:
    prepare("fe", environment, tmp_path / "etc", tmp_path / "run")
    second = prepare("fe", environment | {"TCPHA_MSS": "1400"}, tmp_path / "etc", tmp_path / "run")
    assert "mss = 1400" in second.file.read_text()


def test_file_is_mounted_faults_are_told_of_it_and_its_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    only_secret = {"TCPHA_SECRET_FILE": environment["TCPHA_SECRET_FILE"]}
    (etc / "tcphafe.conf").write_text("# mine\nmss = x\n")
    with pytest.raises(ConfigError, match=rf"^{etc}/tcphafe.conf:2: mss: "):
        prepare("fe", only_secret, etc, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^TCPHA_RADDR: is set, but there is "):
        prepare("fe", environment, etc, tmp_path / "run")


def test_configuration_is_named_but_missing_that_is_a_fault(tmp_path: Path, environment: dict[str, str]) -> None:
    named = {"TCPHA_CONFIG": "/nonexistent/x.conf"}
    with pytest.raises(ConfigError, match=r"^/nonexistent/x.conf: cannot be read"):
        prepare("fe", named, tmp_path, tmp_path / "run")


def test_configuration_is_named_but_missing_variables_beside_it_are_not_blamed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match=r"^/nonexistent/x.conf: cannot be read"):
        prepare("fe", environment | {"TCPHA_CONFIG": "/nonexistent/x.conf"}, tmp_path, tmp_path / "run")


def test_secret_is_to_be_made_where_no_directory_is_that_is_said(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "absent/secret"
    made = {"TCPHA_SECRET_FILE": str(path), "TCPHA_MAKE_SECRET": "yes"}
    with pytest.raises(ConfigError, match=rf"^{path}: no such directory: mount a volume there, or set TCPHA_SECRET"):
        prepare("fe", environment | made, tmp_path / "etc", tmp_path / "run")


def test_secret_can_be_read_by_others_a_warning_says_so(tmp_path: Path, environment: dict[str, str]) -> None:
    Path(environment["TCPHA_SECRET_FILE"]).chmod(0o644)
    [warning] = prepare("fe", environment, tmp_path / "etc", tmp_path / "run").warnings
    assert warning.endswith("mounted can be read by others (mode 0644)")


@pytest.mark.parametrize(
    ("content", "said"), [("0 12\n", ""), ("", ""), ("x" * 5000, "over 4096 octets: not a secret file")]
)
def test_secret_is_none_the_file_is_named_and_nothing_of_it_is_shown(
    tmp_path: Path, environment: dict[str, str], content: str, said: str
) -> None:
    Path(environment["TCPHA_SECRET_FILE"]).write_text(content)
    with pytest.raises(ConfigError) as caught:
        prepare("fe", environment, tmp_path / "etc", tmp_path / "run")
    assert str(caught.value).startswith(f"{environment['TCPHA_SECRET_FILE']}: {said}")
    assert not (tmp_path / "run/secret").exists()


def test_secret_is_a_named_pipe_it_is_refused_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    environment["TCPHA_SECRET_FILE"] = str(path)
    # Whoever reads it all the same finds something and does not wait for ever.
    writer = os.open(path, os.O_RDWR)
    try:
        os.write(writer, b"x" * 5000)
        with pytest.raises(ConfigError, match=rf"^{path}: not a regular file"):
            prepare("fe", environment, tmp_path / "etc", tmp_path / "run")
    finally:
        os.close(writer)


def test_secret_is_missing_it_is_made_only_if_that_is_allowed(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "shared/secret"
    path.parent.mkdir()
    environment["TCPHA_SECRET_FILE"] = str(path)
    with pytest.raises(ConfigError, match=rf"^{path}: no such file: mount the secret, or set TCPHA_MAKE_SECRET=yes"):
        prepare("fe", environment, tmp_path / "etc", tmp_path / "run")
    environment["TCPHA_MAKE_SECRET"] = "yes"
    prepare("fe", environment, tmp_path / "etc", tmp_path / "run")
    made = path.read_text()
    assert mode_of(path) == 0o600
    prepare("fe", environment, tmp_path / "etc", tmp_path / "run")
    assert path.read_text() == made
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_several_make_the_secret_at_once_all_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    start = threading.Barrier(8)
    found: list[str] = []

    def make() -> None:
        start.wait()
        preparation._make_secret(path)
        found.append(path.read_text())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_somebody_makes_the_secret_a_moment_earlier_theirs_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    write = preparation._write

    def write_too_late(draft: Path, text: str, owner: int) -> None:
        path.write_text("theirs")
        write(draft, text, owner)

    monkeypatch.setattr(preparation, "_write", write_too_late)
    preparation._make_secret(path)
    assert path.read_text() == "theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_directory_cannot_be_made_it_is_a_start_error(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=rf"^{tmp_path}/file/run: "):
        prepare("fe", environment, tmp_path / "etc", tmp_path / "file/run")


def test_agents_user_is_missing_it_is_a_start_error_and_nothing_is_written(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preparation, "AGENT_USER", "nobody-of-this-name")
    with pytest.raises(StartError, match="there is no user nobody-of-this-name here"):
        prepare("fe", environment, tmp_path / "etc", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("held", "further"),
    [("bf", ""), ("000001ffffffffff", ",+bpf,+perfmon"), ("0000008000000000", ",+bpf")],
)
def test_container_has_the_rights_for_the_kernel_fast_path_agent_gets_them_too(
    monkeypatch: pytest.MonkeyPatch, held: str, further: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preparation, "_held", lambda: int(held, 16))
    (ambient,) = [word for word in agent_command("be", "/python", Path("/c")) if word.startswith("--ambient-caps=")]
    assert ambient == f"--ambient-caps=-all,+net_admin,+net_raw,+net_bind_service{further}"


def test_capabilities_that_are_held_are_the_kernels_word() -> None:
    status = Path("/proc/self/status").read_text()
    assert f"CapPrm:\t{preparation._held():016x}\n" in status


def test_process_is_root_agent_gets_three_capabilities_and_server_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preparation, "_held", lambda: 0)
    agent = agent_command("be", "/python", Path("/c"))
    assert agent[agent.index("--") + 1 :] == ["/python", "-P", "-m", "tcpha.be", "-c", "/c"]
    assert "--ambient-caps=-all,+net_admin,+net_raw,+net_bind_service" in agent
    server = server_command(["sh", "-q"], {})
    assert server[server.index("--") + 1 :] == ["sh", "-q"]
    assert {"--reuid=www-data", "--ambient-caps=-all", "--inh-caps=-all", "--no-new-privs"} <= set(server)
    assert server_command(["sh"], {"TCPHA_SERVER_USER": "root"}) == ["sh"]
    with pytest.raises(ConfigError, match=r"^TCPHA_SERVER_USER: there is no user 'nouser' in this image$"):
        server_command(["sh"], {"TCPHA_SERVER_USER": "nouser"})


def test_process_is_not_root_children_are_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert agent_command("fe", "/python", Path("/c"))[0] == "/python"
    assert server_command(["sh"], {"TCPHA_SERVER_USER": "nouser"}) == ["sh"]


def test_server_is_no_program_of_the_image_that_is_said_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"^no-such-server: no such program in this image"):
        server_command(["no-such-server"], {})
