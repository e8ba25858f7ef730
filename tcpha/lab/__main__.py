"""The command `python -m tcpha.lab`: up, exec, impair, down, status, sim.

Must not build anything itself. Exit status: 0 done; 1 a program of the lab ended or was not ready; 2 a fault of usage
or at start; 128 + n where signal n interrupted `up`. That of `exec` is the command's own: 128 + n if signal n ended it,
127 if there is no such command, 126 if it cannot be run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tcpha.errors import TcphaError
from tcpha.invocation import command, status_of
from tcpha.lab import cluster, impair_command, keeper, sim_command
from tcpha.lab.addressing import DEFAULT_NAME, MTU_OCTETS
from tcpha.lab.aftermath import told
from tcpha.lab.blueprint import NGINX, Blueprint
from tcpha.lab.cluster import RUN_DIRECTORY, Lab, no_lab
from tcpha.lab.daemon import DaemonError
from tcpha.lab.description import described, remains
from tcpha.lab.interruption import Interrupted, raise_on_signals, wait_until_readable

_MTU = "what the router lets pass towards {} (1280 to 1500, default: %(default)s)"
_NO_COMMAND = 127
_NOT_RUNNABLE = 126

_DOCUMENTS = """\
Each back end serves, on port 80 over IPv4 and IPv6: /0 /1 /1k /100k /1m /10m /100m (0, 1, 1000, 100000, 1000000,
10000000, 100000000 random octets, the same everywhere), each also as .jpg and .html; /client (the peer's address);
POST /sink (the SHA-256 of the body) and GET /sink/count (POSTs served by this node). Server-Node names who answered.
With --protocols also: the same over TLS 1.2 and 1.3, HTTP/1.1 or HTTP/2, on port 443, with the lab's own certificate
(tls.crt) for *.lab.test; HTTP/2 in clear text on port 8080; a WebSocket at /ws that echoes; Redis on port 6379.
"""


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit status."""
    options, words = _parse(arguments)
    try:
        if options.action == "up":
            return _up(options)
        if options.action == "exec":
            return _exec(options.name, options.node, words)
        if options.action == "impair":
            asked = impair_command.wish(options)
            print(impair_command.run(Lab.attach(options.name), asked))
            return 0
        if options.action == "sim":
            print(sim_command.run(options))
            return 0
        if options.action == "down":
            return _down(options.name)
        return _status(options.name)
    except TcphaError as error:
        return _told(error)


def _told(error: TcphaError) -> int:
    """Say what went wrong; the exit status."""
    print(f"tcpha.lab: {told(error)}", file=sys.stderr)
    return 1 if isinstance(error, DaemonError) else 2


class _Parser(argparse.ArgumentParser):
    """Says a fault of usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tcpha.lab: {message} (more: {self.prog} -h)\n")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and what follows the first `--`: argparse itself would look for options in it."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    parser = _parser()
    if words[:1] == ["exec"] and end >= len(words) - 1 and not {"-h", "--help"} & set(words):
        parser.error("exec needs `--` and a command behind it: exec NODE -- CMD...")
    options = parser.parse_args(impair_command.joined(words[:end]))
    if options.action != "exec" and end < len(words):
        parser.error(f"{options.action} takes no command")
    return options, words[end + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=command("tcpha.lab"),
        description="A cluster on one machine, in network namespaces: client, front end, back ends, plain servers.",
        epilog=_DOCUMENTS,
    )
    name = _Parser(add_help=False)
    name.add_argument("--name", default=DEFAULT_NAME, help="which lab (default: %(default)s)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="up|exec|impair|down|status|sim")
    up = actions.add_parser("up", parents=[name], help="bring a lab up and leave it running", epilog=_DOCUMENTS)
    up.add_argument("--backends", type=int, default=2, metavar="N", help="be1 to beN (default: %(default)s)")
    up.add_argument(
        "--server",
        default=NGINX,
        metavar="CMD|none",
        help="run in each back end instead of nginx, in the foreground; TCPHA_NODE and TCPHA_DOCUMENTS are set",
    )
    up.add_argument("--engine", choices=("tcpha", "none"), default="tcpha", help="none: only network and servers")
    up.add_argument("--routed", action="store_true", help="a router between client, front end and back ends")
    up.add_argument("--client-mtu", type=int, default=MTU_OCTETS, metavar="OCTETS", help=_MTU.format("the client"))
    up.add_argument("--backend-mtu", type=int, default=MTU_OCTETS, metavar="OCTETS", help=_MTU.format("back ends"))
    up.add_argument("--protocols", action="store_true", help="serve TLS, HTTP/2, WebSocket and Redis, too: see below")
    up.add_argument(
        "--fe-conf",
        type=Path,
        metavar="FILE",
        help="tcphafe.conf; secret, state, iface and, if routed, forward are added; without --be-conf the back ends"
        " keep the lab's own file: where server, rule, vaddr, vport and promises are not the same in both, the front"
        " end's rules decide and its log warns",
    )
    up.add_argument(
        "--be-conf",
        type=Path,
        metavar="FILE",
        help="tcphabe.conf; likewise, and raddr is each node's own; without --fe-conf the front end keeps the"
        " lab's own",
    )
    execute = actions.add_parser(
        "exec", parents=[name], help="run a command in a node", usage="%(prog)s [--name NAME] NODE -- CMD..."
    )
    execute.add_argument("node", metavar="NODE", help="client, fe, be1, ..., router, or switch (the bridges)")
    impair = actions.add_parser(
        "impair",
        parents=[name],
        help=impair_command.HELP,
        usage=impair_command.USAGE,
        description=impair_command.DESCRIPTION,
        epilog=impair_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    impair_command.add_arguments(impair)
    actions.add_parser("down", parents=[name], help="remove every trace of a lab, also after a crash")
    status = actions.add_parser(
        "status", aliases=["ls"], help="the labs that stand, what runs in them, what has ended and how"
    )
    status.add_argument("--name", help="this lab only")
    sim = actions.add_parser("sim", help=sim_command.HELP, epilog=sim_command.EPILOG)
    sim_command.add_arguments(sim)
    return parser


def _up(options: argparse.Namespace) -> int:
    lab = Lab(options.name)
    lab.refuse(
        Blueprint(
            options.backends,
            None if options.server == "none" else options.server,
            "",
            options.routed,
            options.client_mtu,
            options.backend_mtu,
            options.protocols,
        )
    )
    return keeper.run_kept(lambda: _bring_up(lab, options))


def _bring_up(lab: Lab, options: argparse.Namespace) -> tuple[int, dict[int, Path]]:
    """Exit status, and where to write down how each program that runs ends."""
    try:
        raise_on_signals()
        lab.up(
            backends=options.backends,
            server=None if options.server == "none" else options.server,
            engine=options.engine != "none",
            fe_conf=options.fe_conf,
            be_conf=options.be_conf,
            routed=options.routed,
            client_mtu_octets=options.client_mtu,
            backend_mtu_octets=options.backend_mtu,
            protocols=options.protocols,
        )
        status = status_of(lambda: _tell_of(lab, _hint_of_one_file(options.fe_conf, options.be_conf)))
    except Interrupted as interruption:
        if lab.is_claimed:  # it came too late for `up`, or while that was taking down
            lab.down()
        print(f"tcpha.lab: interrupted; lab {lab.name} was not brought up", file=sys.stderr)
        return 128 + interruption.number, {}
    except TcphaError as error:
        return _told(error), {}
    daemons = [daemon for node in lab.nodes.values() for daemon in node.daemons.values()]
    return status, {daemon.pid: daemon.status_file for daemon in daemons if daemon.pid is not None}


def _tell_of(lab: Lab, hint: str | None) -> int:
    print(described(lab))
    if hint is not None:
        print(f"tcpha.lab: {hint}", file=sys.stderr)
    return 0


def _hint_of_one_file(fe_conf: Path | None, be_conf: Path | None) -> str | None:
    if (fe_conf is None) is (be_conf is None):
        return None
    given, others = ("--fe-conf", "the back ends have") if be_conf is None else ("--be-conf", "the front end has")
    return (
        f"only {given} was given: {others} the lab's own file; unless server, rule, vaddr, vport and promises are the"
        " same in both, the front end's log warns of it, and a back end gets nothing for virtual addresses and ports"
        " that are not in its own file; otherwise the front end's rules decide"
    )


def _exec(name: str, node: str, words: Sequence[str]) -> int:
    """Streams pass through; the terminal signals the command itself, other signals are passed on to it."""
    target = Lab.attach(name).node(node)
    try:
        child = target.popen(words)
    except (FileNotFoundError, PermissionError) as error:
        print(f"tcpha.lab: {words[0]}: {error.strerror}", file=sys.stderr)
        return _NO_COMMAND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE
    _pass_signals_to(child)
    ended = os.pidfd_open(child.pid)
    wait_until_readable(ended)
    os.close(ended)
    status = child.wait()
    return 128 - status if status < 0 else status


def _pass_signals_to(child: subprocess.Popen[bytes]) -> None:
    def ignore(_number: int, _frame: FrameType | None) -> None:
        """Whoever typed it reached the command too."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    receivers = {signal.SIGINT: ignore, signal.SIGQUIT: ignore, signal.SIGTERM: pass_on, signal.SIGHUP: pass_on}
    for number, receiver in receivers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, receiver)


def _down(name: str) -> int:
    lab = Lab(name)
    stood = lab.leaves_traces()
    lab.down()
    print(f"lab {name} is down" if stood else f"there is no lab {name}")
    return 0


def _status(name: str | None) -> int:
    """Raises StartError if there is nothing of that name."""
    labs = cluster.standing(RUN_DIRECTORY)
    if name is not None and name not in labs:
        raise no_lab(name)
    for lab in labs if name is None else (name,):
        print(described(Lab.attach(lab)) if cluster.namespaces_of(lab) else remains(lab))
    if not labs:
        print("no lab stands")
    return 0


if __name__ == "__main__":
    sys.exit(status_of(lambda: main(sys.argv[1:])))
