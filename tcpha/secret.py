"""The file that holds the cluster's secret: read once at start, and only if nobody else can read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tcpha.errors import ConfigError
from tcpha.proto.keyring import Keyring, parse_keyring

MAX_OCTETS = 4096


def load_keyring(path: Path) -> Keyring:
    """Read the keys (format: `tcpha.proto.keyring`). No key material is in any error.

    Raises: ConfigError if the file is missing, no regular file, readable by others, or holds no usable key.
    """
    try:
        octets, about = read_octets(path)
    except FileNotFoundError:
        raise ConfigError(path, None, f"no such file; make the secret with: {_recipe(path)}") from None
    except OSError as error:
        raise ConfigError(path, None, f"the secret cannot be read: {error.strerror}") from None
    if about.st_uid not in (0, os.geteuid()):
        raise ConfigError(path, None, f"the secret belongs to user {about.st_uid}: chown root {path}")
    mode = stat.S_IMODE(about.st_mode)
    if mode & 0o077:
        raise ConfigError(path, None, f"others may read or change the secret (mode {mode:04o}): chmod 600 {path}")
    try:
        return parse_keyring(octets.decode("ascii", "replace"))
    except ValueError as error:
        raise ConfigError(path, None, f"{error}; make a secret with: {_recipe(path)}") from None


def read_octets(path: Path) -> tuple[bytes, os.stat_result]:
    """Return what stands in the file of a secret, unchecked, and whose it is. Never waits.

    Raises: OSError. ConfigError if it is no regular file, or too long for a secret.
    """
    # Not blocking: somebody may have put a named pipe there.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(path, None, "not a regular file: no secret file")
        octets = file.read(MAX_OCTETS + 1)
    if len(octets) > MAX_OCTETS:
        raise ConfigError(path, None, f"over {MAX_OCTETS} octets: not a secret file")
    return octets, about


def _recipe(path: Path) -> str:
    made = f"""(umask 077; python3 -c 'import secrets; print(0, secrets.token_hex(32))' > {path})"""
    return made if path.parent.exists() else f"install -d -m 755 {path.parent} && {made}"
