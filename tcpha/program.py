"""The command lines `python -m tcpha.fe` and `python -m tcpha.be`: options, messages, exit status.

Exit status: 0 after a stop that was asked for, and after a look (`--check`) or a cleaning (`--clean`) that went well; 1
if the kernel failed the process while it served, or the host could not be cleaned up; 2 for a fault at start, or one
that `--check` foresees, with one line on standard error that says where and why. Interrupted before anything was put on
the host: 130.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from tcpha import __version__
from tcpha.config import NodeConfig
from tcpha.errors import ConfigError, EdgeError, StartError
from tcpha.invocation import command
from tcpha.net import netlink
from tcpha.net.bpf_syscall import holds
from tcpha.net.channel import is_address_here
from tcpha.net.footprint import Footprint, Plan, Role
from tcpha.net.occupancy import Occupancy
from tcpha.proto.keyring import Keyring
from tcpha.secret import load_keyring

_CAP_NET_ADMIN = 12
"""No node starts without it."""


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
    end_left: Callable[[ConfigT], int] = lambda _: 0,
) -> int:
    """Run one node; return its exit status.

    `obstacle`: why the kernel of this host could not carry its packets. `end_left`: ends the connections that an
    earlier process left and that speak without a process, and returns how many.
    """
    options = _parse(name, default_file, arguments)
    try:
        config = load(options.config)
        if options.clean:
            _clean(name, config, end_left)
            return 0
        for warning in config.warnings():
            print(f"{options.config}: warning: {warning}", file=sys.stderr)
        if options.check:
            _check(options.config, config, obstacle)
            return 0
        logging.basicConfig(
            level=config.log.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        node = _build(name, config, build)
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


def _clean(role: Role, config: ConfigT, end_left: Callable[[ConfigT], int]) -> None:
    """Take away what an earlier run left, and say what.

    Connections are ended first: without their address clients would not hear of it. Raises: StartError while a process
    of this role runs here; EdgeError if not everything could be taken away.
    """
    _refuse_no_directory(config.state)
    _refuse_second(role)
    ended, fault = 0, None
    try:
        ended = end_left(config)
    except EdgeError as error:
        fault = error
    if ended:
        print(f"{role}: ended connections that the kernel carried: {ended}")
    removed = Footprint(role, config.state).remove()
    for what in removed:
        print(f"{role}: removed {what}")
    if fault is not None:
        raise fault
    if not (ended or removed):
        print(f"{role}: nothing was left on this host")


def _build(name: Role, config: ConfigT, build: Callable[[ConfigT, Keyring], Runnable]) -> Runnable:
    """Open what the node needs; nothing of the host is changed yet. Raises: ConfigError, StartError."""
    keyring = load_keyring(config.secret)
    _refuse_no_directory(config.state)
    try:
        return build(config, keyring)
    except (EdgeError, StartError) as error:
        _refuse_second(name)
        raise StartError(str(error)) from error


def _refuse_second(role: Role) -> None:
    """Name the process of this role that runs here: it may well have what could not be opened. Raises: StartError."""
    occupancy = Occupancy(role)
    occupancy.take()
    occupancy.give_up()


def _refuse_no_directory(state: Path) -> None:
    """Raises: StartError if the directory of the state is none, and cannot be made because of what is in its place."""
    with suppress(PermissionError):  # a process without the rights for more says so itself
        place = next(each for each in (state, *state.parents) if each.exists() or each.is_symlink())
        if not place.is_dir():
            raise StartError(f"state = {state}" + ("" if place == state else f": {place}") + " is no directory")


def _check(file: Path, config: ConfigT, obstacle: Callable[[ConfigT], str | None]) -> None:
    """Say whether a configuration without a fault would do on this host. Raises: StartError where a start raises it.

    Only warn where no start by who asks could come so far: that is another's host, or another's right.
    """
    _warn_of_secret(file, config)
    try:
        told = _look_at_host(config, obstacle)
    except StartError as error:
        if is_address_here(config.raddr) and holds(_CAP_NET_ADMIN):
            raise
        print(f"{file}: warning: a start here ends with status 2: {error}", file=sys.stderr)
        return
    print(f"{file}: ok")
    if told is not None:
        print(f"{file}: {told}")


def _look_at_host(config: ConfigT, obstacle: Callable[[ConfigT], str | None]) -> str | None:
    """Return whether the kernel could carry, in words; None if it is not to. Raises: StartError, as a start does."""
    if config.iface is None:
        netlink.interface_of(config.raddr)
    else:
        netlink.index_of(config.iface)
    if not is_address_here(config.raddr):
        raise StartError(f"{config.raddr} is no address of this host")
    _refuse_no_directory(config.state)
    if config.accelerate == "off":
        return None
    reason = obstacle(config)
    if reason is not None and config.accelerate == "require":
        raise StartError(f"accelerate = require: {reason}")
    return "this host can be accelerated" if reason is None else f"not accelerated here: {reason}"


def _warn_of_secret(file: Path, config: NodeConfig) -> None:
    """Only warn: who checks a configuration need not be the one who may read the secret."""
    try:
        load_keyring(config.secret)
    except ConfigError as error:
        print(f"{file}: warning: {error}", file=sys.stderr)


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
        " where a start here would find no such interface, or must be accelerated and cannot, says so and ends with"
        " status 2 as well; on a host without `raddr`, or without CAP_NET_ADMIN, that is a warning instead of `ok`, and"
        " the status 0; needs no rights and changes nothing",
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
        help="only take away what an earlier run left on this host, after a kill or --keep, and say what; connections"
        " that the kernel carries for a back end are ended; of the configuration only `state` matters, and for that"
        " `vaddr` and `kernel_mark`; refused while a process of this role runs here",
    )
    parser.add_argument("--version", action="version", version=f"tcpha {__version__}")
    return parser.parse_args(arguments)
