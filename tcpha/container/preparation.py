"""What a container needs before its children start: a checked configuration and a secret that only the agent can read.

Begun as root, the container lets the agent be a user that can do nothing but its work with packets, and its server one
that can do nothing at all (capabilities(7), setpriv(1)). That user can read neither a mounted secret, which belongs to
someone of the host, nor need it: it gets a copy, in memory if /run is. Begun as another user, everything stays that
user's. Environment variables and a file are both read here; what variables mean stands in `settings`.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tcpha.config import NodeConfig, load_back_end, load_front_end
from tcpha.container.health import Wanted
from tcpha.container.settings import (
    CONFIG,
    MAKE_SECRET,
    SECRET_FILE,
    SERVER_USER,
    Generated,
    Role,
    configuration_of,
    is_yes,
    refuse_both,
    with_secret,
)
from tcpha.errors import ConfigError, StartError
from tcpha.proto.keyring import parse_keyring
from tcpha.secret import read_octets

AGENT_USER = "tcpha"
DEFAULT_SERVER_USER = "www-data"
CAPABILITIES = ("net_admin", "net_raw", "net_bind_service")
"""Addresses, rules and queues; packets; the handoff port."""
KERNEL_CAPABILITIES = {39: "bpf", 38: "perfmon"}
"""For the kernel fast path (`accelerate`), where the container has them; by their numbers (capabilities(7))."""
_LOADERS = {"fe": load_front_end, "be": load_back_end}
_SECRET_BITS = 256


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made for the agent: its configuration and where it is; what to tell the log."""

    config: NodeConfig
    file: Path
    warnings: tuple[str, ...]


def prepare(role: Role, environment: Mapping[str, str], etc: Path, run: Path) -> Prepared:
    """Check everything, then write configuration, secret and what `health` looks at into `run`.

    etc: where a mounted configuration is looked for unless TCPHA_CONFIG names one. Raises: ConfigError, StartError.
    """
    owner = _agent_uid()
    try:
        _make_directory(run, owner)
        named = environment.get(CONFIG, "").strip()
        source = Path(named) if named else etc / f"tcpha{role}.conf"
        file = run / f"tcpha{role}.conf"
        if named or source.exists():
            if source.exists():  # else its absence is what to tell
                refuse_both(environment, str(source))
            config = _LOADERS[role](source)
            text = source.read_text(encoding="utf-8-sig")
        else:
            generated = configuration_of(role, environment)
            config = _load_generated(role, generated, file, owner)
            text = generated.text
        keys, warning = _read_secret(_secret_path(config, environment), is_yes(environment, MAKE_SECRET))
        _make_directory(config.state, owner)
        _write(run / "secret", keys, owner)
        _write(file, with_secret(text, str(run / "secret")), owner)
        _write(run / "health.json", json.dumps(asdict(_wanted(role, config))), owner)
    except OSError as error:
        raise StartError(f"{error.filename or run}: {error.strerror}") from error
    return Prepared(config, file, tuple(filter(None, (warning, *config.warnings()))))


def agent_command(role: Role, python: str, file: Path) -> list[str]:
    """Return the words that run the agent: as its own user if this process is root."""
    words = [python, "-P", "-m", f"tcpha.{role}", "-c", str(file)]
    if os.geteuid() != 0:
        return words
    held = _held()
    further = [name for number, name in KERNEL_CAPABILITIES.items() if held & 1 << number]
    kept = ",".join(["-all", *(f"+{capability}" for capability in (*CAPABILITIES, *further))])
    return [*_as_user(AGENT_USER), f"--inh-caps={kept}", f"--ambient-caps={kept}", "--", *words]


def server_command(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the words that run the server: as a user without any rights if this process is root.

    Raises: ConfigError if there is no such program or no such user.
    """
    if shutil.which(words[0]) is None:
        raise ConfigError(words[0], None, "no such program in this image")
    if os.geteuid() != 0:
        return list(words)
    user = environment.get(SERVER_USER, "").strip() or DEFAULT_SERVER_USER
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(SERVER_USER, None, f"there is no user {user[:60]!r} in this image") from None
    if account.pw_uid == 0:
        return list(words)
    _let_write(1, account.pw_uid)
    return [*_as_user(user), "--inh-caps=-all", "--ambient-caps=-all", "--", *words]


def _agent_uid() -> int:
    """Whose the agent's files are. Raises: StartError where there is no such user."""
    if os.geteuid() != 0:
        return os.geteuid()
    try:
        return pwd.getpwnam(AGENT_USER).pw_uid
    except KeyError:
        raise StartError(f"there is no user {AGENT_USER} here: this is for the container's image") from None


def _held() -> int:
    """The capabilities of this process, a bit each (proc_pid_status(5), CapPrm)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("CapPrm:")[2].split(maxsplit=1)[0], 16)


def _as_user(user: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs"]


def _let_write(descriptor: int, uid: int) -> None:
    """Let a user open /dev/stdout, as servers do for their logs: it must own the pipe or terminal behind it."""
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor):
        with suppress(OSError):  # then its log is lost, or it says so itself
            os.fchown(descriptor, uid, -1)


def _load_generated(role: Role, generated: Generated, file: Path, owner: int) -> NodeConfig:
    _write(file, generated.text, owner)
    try:
        return _LOADERS[role](file)
    except ConfigError as error:
        raise generated.located(error) from None


def _secret_path(config: NodeConfig, environment: Mapping[str, str]) -> Path:
    """Beside a configuration file, too, the variable counts: where a secret is mounted is the container's business."""
    named = environment.get(SECRET_FILE, "").strip()
    if named and not Path(named).is_absolute():
        raise ConfigError(SECRET_FILE, None, f"{named[:60]!r} is no absolute path")
    return Path(named) if named else config.secret


def _read_secret(path: Path, may_make: bool) -> tuple[str, str | None]:
    """Return the keys, and a warning if others can read them too. Raises: ConfigError, OSError."""
    if may_make:
        _make_secret(path)
    try:
        octets, about = read_octets(path)
    except FileNotFoundError:
        raise ConfigError(
            path, None, f"no such file: mount the secret, or set {MAKE_SECRET}=yes on one machine"
        ) from None
    mode = stat.S_IMODE(about.st_mode)
    text = octets.decode("ascii", "replace")
    try:
        parse_keyring(text)
    except ValueError as error:
        raise ConfigError(path, None, str(error)) from None
    return text, f"{path} can be read by others (mode {mode:04o})" if mode & 0o077 else None


def _make_secret(path: Path) -> None:
    """Make the secret unless it is there. Of several containers that do so at once, one wins, for all."""
    if path.exists():
        return
    if not path.parent.is_dir():
        raise ConfigError(path, None, f"no such directory: mount a volume there, or set {SECRET_FILE}")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write(draft, f"0 {secrets.token_hex(_SECRET_BITS // 8)}\n", os.geteuid())
    try:
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename it never replaces what is there
    finally:
        draft.unlink()


def _make_directory(path: Path, owner: int) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(path, owner, -1)


def _write(path: Path, text: str, owner: int) -> None:
    """Write a file that only its owner can read, whatever was there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        if os.geteuid() == 0:
            os.fchown(descriptor, owner, -1)
        file.write(text)


def _wanted(role: Role, config: NodeConfig) -> Wanted:
    queues = (config.queue,) if role == "fe" else (config.queue, config.queue + 1)
    return Wanted(str(config.raddr), config.port, queues)
