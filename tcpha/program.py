"""The command lines `python -m tcpha.fe` and `python -m tcpha.be`: options, messages, exit status.

Exit status: 0 after a stop that was asked for, and after a look (`--check`) or a cleaning (`--clean`) that went well; 1
if the kernel failed the process while it served, or the host could not be cleaned up; 2 for a fault at start, with one
line on standard error that says where and why. Interrupted before anything was put on the host: 130.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from tcpha import __version__
from tcpha.config import NodeConfig
from tcpha.errors import ConfigError, EdgeError, StartError
from tcpha.invocation import command
from tcpha.net.footprint import Footprint, Plan, Role
from tcpha.proto.keyring import Keyring
from tcpha.secret import load_keyring


class Runnable(Protocol):
    """A node as `program` runs it."""

    plan: Plan

    def run(self, plan: Plan, keep: bool) -> None:
        """Serve until a signal ends it."""


ConfigT = TypeVar("ConfigT", bound=NodeConfig)


def main(
    name: Role,
    default_file: str,
    load: Callable[[Path], ConfigT],
    build: Callable[[ConfigT, Keyring], Runnable],
    obstacle: Callable[[ConfigT], str | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run one node; return its exit status. `obstacle`: why the kernel of this host could not carry its packets."""
    options = _parse(name, default_file, arguments)
    try:
        config = load(options.config)
        if options.clean:
            _clean(name, config.state)
            return 0
        for warning in config.warnings():
            print(f"{options.config}: warning: {warning}", file=sys.stderr)
        if options.check:
            _warn_of_secret(options.config, config)
            print(f"{options.config}: ok")
            _tell_of_kernel(options.config, config, obstacle)
            return 0
        logging.basicConfig(
            level=config.log.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        node = _build(config, build)
        node.run(node.plan, options.keep)
    except (ConfigError, StartError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except EdgeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _clean(role: Role, state: Path) -> None:
    """Take away what an earlier run left, and say what. Raises: StartError while a process of this role runs here."""
    removed = Footprint(role, state).remove()
    for what in removed:
        print(f"{role}: removed {what}")
    if not removed:
        print(f"{role}: nothing was left on this host")


def _build(config: ConfigT, build: Callable[[ConfigT, Keyring], Runnable]) -> Runnable:
    """Open what the node needs; nothing of the host is changed yet. Raises: ConfigError, StartError."""
    keyring = load_keyring(config.secret)
    try:
        return build(config, keyring)
    except EdgeError as error:
        raise StartError(str(error)) from error


def _warn_of_secret(file: Path, config: NodeConfig) -> None:
    """Only warn: who checks a configuration need not be the one who may read the secret."""
    try:
        load_keyring(config.secret)
    except ConfigError as error:
        print(f"{file}: warning: {error}", file=sys.stderr)


def _tell_of_kernel(file: Path, config: ConfigT, obstacle: Callable[[ConfigT], str | None]) -> None:
    """Only tell: who checks a configuration need not have the rights that it takes, nor be on its host."""
    if config.accelerate == "off":
        return
    try:
        reason = obstacle(config)
    except StartError as error:
        reason = str(error)
    print(f"{file}: " + ("this host can be accelerated" if reason is None else f"not accelerated here: {reason}"))


def _parse(name: Role, default_file: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=command(f"tcpha.{name}"),
        description={
            "fe": "The front end of a tcpha cluster: answers the virtual addresses and hands connections off.",
            "be": "The back end of a tcpha cluster: rebuilds handed-off connections beside an unmodified server.",
        }[name],
        epilog="SIGTERM or SIGINT stops it and cleans the host up; SIGUSR1 logs its counters; SIGHUP does nothing. "
        "Exit status: 0 stopped as asked, 1 the host could not be cleaned up, 2 a fault at start.",
    )
    parser.add_argument(
        "-c", "--config", type=Path, default=Path(default_file), metavar="FILE", help="default: %(default)s"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--check",
        action="store_true",
        help="only validate the configuration: prints `ok`, or FILE:LINE and the reason; warns if the secret cannot be"
        " used; says whether the kernel could carry packets here (`accelerate`), as far as the rights of who asks tell;"
        " needs none and changes nothing",
    )
    mode.add_argument(
        "--keep",
        action="store_true",
        help="at the end leave addresses, rules and what the kernel carries on the host, for the next start:"
        " connections outlive that, but for those that a back end's agent carries itself, and those whose packets come"
        " to a back end in a tunnel stand still meanwhile",
    )
    mode.add_argument(
        "--clean",
        action="store_true",
        help="only take away what an earlier run left on this host, after a kill or --keep, and say what; of the"
        " configuration only `state` matters; refused while a process of this role runs here",
    )
    parser.add_argument("--version", action="version", version=f"tcpha {__version__}")
    return parser.parse_args(arguments)
