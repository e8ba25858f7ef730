"""The secret's file: what is accepted, what is refused, and that no key material is in any message."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from tcpha.errors import ConfigError
from tcpha.secret import MAX_OCTETS, load_keyring

KEY = "c0ffee" * 10 + "beef"
NEXT = "5a" * 32


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with one key, as it should be."""
    return written(tmp_path / "secret", f"1 {KEY}\n")


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    """The reason why a file is refused; its message names the file and tells no key."""
    with pytest.raises(ConfigError) as caught:
        load_keyring(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert not re.search(r"c0ffee|5a5a", said)
    return caught.value.reason


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_file_of_the_owner_alone_is_read(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert [(key.number, key.octets.hex()) for key in load_keyring(secret).keys] == [(1, KEY)]


def test_two_keys_the_first_signs(secret: Path) -> None:
    written(secret, f"# next\n7 {NEXT}\n\n1 {KEY} # old\n")
    keyring = load_keyring(secret)
    assert [key.number for key in keyring.keys] == [7, 1]
    assert keyring.signing.number == 7


def test_link_to_the_file_is_followed(secret: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert load_keyring(link) == load_keyring(secret)


def test_key_is_in_no_repr(secret: Path) -> None:
    shown = repr(load_keyring(secret))
    assert "c0ffee" not in shown
    assert repr(bytes.fromhex(KEY))[2:12] not in shown


@pytest.mark.parametrize("name", ["secret", "etc/tcpha/secret"])
def test_missing_file_the_command_that_is_named_makes_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    command = refusal(path).partition("make the secret with: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert len(load_keyring(path).keys) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o666, 0o777])
def test_file_that_others_may_use_is_refused_with_the_remedy(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert f"mode {mode:04o}): chmod 600 {secret}" in refusal(secret)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_refused_with_the_remedy(secret: Path) -> None:
    os.chown(secret, 65534, -1)
    assert refusal(secret) == f"the secret belongs to user 65534: chown root {secret}"


def test_directory_is_refused(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path)


def test_part_of_the_path_is_a_file_is_refused(secret: Path) -> None:
    assert "Not a directory" in refusal(secret / "below")


def test_link_to_itself_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "symbolic links" in refusal(loop)


def test_named_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(refusal(pipe)), daemon=True)
    reader.start()
    reader.join(5.0)
    assert said == ["not a regular file: no secret file"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no key in it"),
        ("\n# a comment\n", "no key in it"),
        (KEY, "line 1 is not `NUMBER KEY`"),
        (f"1 {KEY[:-1]}", "line 1: a key is 64 hexadecimal digits"),
        (f"\n1 {KEY}0", "line 2: a key is 64 hexadecimal digits"),
        (f"1 {KEY[:-1]}g", "line 1: a key is 64 hexadecimal digits"),
        (f"256 {KEY}", "line 1 is not `NUMBER KEY` with a number 0..255"),
        (f"-1 {KEY}", "line 1 is not `NUMBER KEY` with a number 0..255"),
        (f"1 {KEY} 2", "line 1 is not `NUMBER KEY`"),
        (f"1 {KEY}\n1 {NEXT}", "key number 1 stands twice"),
        (f"1 {KEY}\n2 {NEXT}\n3 {NEXT}", "3 keys; one signs and one more may verify"),
        (b"1 " + b"\xff" * 64, "line 1: a key is 64 hexadecimal digits"),
        (bytes(100), "line 1 is not `NUMBER KEY`"),
    ],
)
def test_contents_that_are_no_keys_are_refused_with_a_command(secret: Path, text: str | bytes, reason: str) -> None:
    written(secret, text)
    said = refusal(secret)
    assert said.startswith(reason)
    assert f"token_hex(32))' > {secret})" in said


def test_file_too_long_for_a_secret_is_refused(secret: Path) -> None:
    written(secret, f"1 {KEY}\n" + "#" * MAX_OCTETS)
    assert refusal(secret) == f"over {MAX_OCTETS} octets: not a secret file"
