"""What runs in the nodes of a lab: the engine (tcpha.fe, tcpha.be) and the servers, as `Program` values.

Must not start anything: it writes the files a program reads, and says how it is run.
"""

from __future__ import annotations

import os
import resource
import secrets
import shlex
import sys
from functools import partial
from pathlib import Path

import tcpha
from tcpha.errors import ConfigError, StartError
from tcpha.lab import certificate, configuration, nginx, redis
from tcpha.lab.addressing import Place, Plan
from tcpha.lab.blueprint import NGINX, Blueprint
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import Program, someone_listens
from tcpha.lab.node import Node

_SOCKET_PATH_OCTETS = 107
_BEHIND_NGINX = {"sink": "tcpha.lab.sink", "echo": "tcpha.lab.websocket"}


def write_secret(directory: Path) -> Path:
    """Make the secret all nodes of a lab share, readable by root only; its path."""
    path = secret_path(directory)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(configuration.secret_text(secrets.token_bytes(configuration.SECRET_OCTETS)))
    return path


def secret_path(directory: Path) -> Path:
    """Where the secret of the lab with this directory is."""
    return directory / "secret"


def write_certificate(directory: Path, plan: Plan) -> None:
    """Make the certificate that the servers of a lab show, and its key.

    Raises:
        StartError: openssl cannot make them.
    """
    servers = (address for place in plan.backends for address in (place.ipv4, place.ipv6))
    certificate.make(certificate_path(directory), _key_path(directory), (plan.vip4, plan.vip6, *servers))


def certificate_path(directory: Path) -> Path:
    """Where the certificate of the lab with this directory is, if its servers have one."""
    return directory / "tls.crt"


def write_front_end(
    plan: Plan, node: Node, secret: Path, settings: Settings, file: Path | None, *, protocols: bool = False
) -> None:
    """Write the configuration of the front end: the lab's own, or `file` completed.

    `protocols`: the back ends speak more than HTTP/1.

    Raises:
        ConfigError: `file` cannot be read.
    """
    state = _state(node)
    text = (
        configuration.front_end(plan, secret, state, settings, protocols=protocols)
        if file is None
        else configuration.completed(_read(file), secret, state, configuration.forwarding_lines(plan))
    )
    _engine_file(node).write_text(text)


def write_back_end(
    plan: Plan,
    node: Node,
    place: Place,
    secret: Path,
    settings: Settings,
    file: Path | None,
    *,
    protocols: bool = False,
) -> None:
    """Write the configuration of one back end: the lab's own, or `file` completed and given the node's address.

    `protocols`: the back ends speak more than HTTP/1.

    Raises:
        ConfigError: `file` cannot be read.
    """
    state = _state(node)
    text = (
        configuration.back_end(plan, place, secret, state, settings, protocols=protocols)
        if file is None
        else configuration.completed(configuration.readdressed(_read(file), place), secret, state)
    )
    _engine_file(node).write_text(text)


def engine(node: Node) -> Program:
    """How tcpha.fe or tcpha.be runs in a node: with this interpreter, from this package, whatever is installed."""
    role = _role(node)
    package = str(Path(tcpha.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    arguments = [sys.executable, "-m", f"tcpha.{role}", "-c", str(_engine_file(node))]
    return Program(role, arguments, node.directory, {**os.environ, "PYTHONPATH": path}, notifies=True)


def servers(node: Node, blueprint: Blueprint) -> dict[str, Program]:
    """How the servers of a back end run, by what they are to the node: `server`, and `sink` beside nginx.

    Where the lab speaks more than HTTP/1 there are `echo`, a WebSocket server beside nginx, and `redis`, too.

    A command of the user's finds the node's name in TCPHA_NODE and the documents in TCPHA_DOCUMENTS; it must stay in
    the foreground, and serves once a TCP socket of the node listens.

    Raises:
        StartError: no nginx, no Redis where it is wanted, or a command line that is none.
    """
    if blueprint.server is None:
        return {}
    environment = {**os.environ, "TCPHA_NODE": node.name, "TCPHA_DOCUMENTS": blueprint.documents}
    if blueprint.server != NGINX:
        serves = partial(someone_listens, node.enter)
        return {"server": Program("server", split_command(blueprint.server), node.directory, environment, serves)}
    program = nginx.find_program()
    if program is None:
        raise StartError("nginx is not installed")
    arguments = nginx.command(program, node.directory, _nginx_file(node))
    ports = (nginx.PORT, nginx.TLS_PORT, nginx.HTTP2_PORT) if blueprint.protocols else (nginx.PORT,)
    serves = partial(someone_listens, node.enter, ports)
    server = Program("server", arguments, node.directory, environment, serves)
    further = {"echo": _beside(node, "echo"), "redis": _redis(node)} if blueprint.protocols else {}
    return {"sink": _beside(node, "sink"), **further, "server": server}


def write_nginx(node: Node, blueprint: Blueprint, directory: Path) -> None:
    """Write the configuration of a node's nginx, and the directories it needs; `directory` is the lab's."""
    (node.directory / "nginx-temporary").mkdir()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = nginx.OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, nginx.OPEN_FILES_WANTED)
    further = nginx.Further(certificate_path(directory), _key_path(directory), _socket(node, "echo"))
    text = nginx.configuration(
        node.name,
        node.directory,
        Path(blueprint.documents),
        _socket(node, "sink"),
        open_files,
        further if blueprint.protocols else None,
    )
    _nginx_file(node).write_text(text)


def split_command(line: str) -> list[str]:
    """Words of a command line as a shell reads them, though no shell runs it.

    Raises:
        StartError: it is empty, or a quotation is open.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise StartError(f"the server command {line!r} cannot be read: {error}") from error
    if not words:
        raise StartError("the server command is empty")
    return words


def _beside(node: Node, name: str) -> Program:
    """One of our own servers behind nginx."""
    socket = str(_socket(node, name))
    if len(os.fsencode(socket)) > _SOCKET_PATH_OCTETS:
        raise StartError(f"{socket} is too long for the path of a Unix socket")
    environment = engine(node).environment
    return Program(name, [sys.executable, "-m", _BEHIND_NGINX[name], socket], node.directory, environment)


def _redis(node: Node) -> Program:
    program = redis.find_program()
    if program is None:
        raise StartError("redis-server is not installed")
    serves = partial(someone_listens, node.enter, (redis.PORT,))
    return Program("redis", redis.command(program, node.directory), node.directory, os.environ, serves)


def _role(node: Node) -> str:
    return "fe" if node.name == "fe" else "be"


def _engine_file(node: Node) -> Path:
    return node.directory / f"tcpha{_role(node)}.conf"


def _nginx_file(node: Node) -> Path:
    return node.directory / "nginx.conf"


def _socket(node: Node, name: str) -> Path:
    return node.directory / f"{name}.socket"


def _key_path(directory: Path) -> Path:
    return directory / "tls.key"


def _state(node: Node) -> Path:
    state = node.directory / "state"
    state.mkdir(exist_ok=True)
    return state


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file, None, f"cannot be read: {error}") from error
