"""The command `python -m tcpha.lab`: up, exec, impair, down, status.

Must not build anything itself. Exit status: 0 done; 1 a program of the lab ended or was not ready; 2 a fault of usage
or at start; 128 + n where signal n interrupted `up`. That of `exec` is the command's own: 128 + n if signal n ended it,
127 if there is no such command, 126 if it cannot be run.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from tcpha.errors import TcphaError
from tcpha.lab import cluster, impair_command
from tcpha.lab.addressing import DEFAULT_NAME, MTU_OCTETS, ROUTER, Plan
from tcpha.lab.blueprint import NGINX
from tcpha.lab.cluster import RUN_DIRECTORY, Lab
from tcpha.lab.daemon import DaemonError
from tcpha.lab.interruption import Interrupted, raise_on_signals
from tcpha.lab.node import Node

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
    options, command = _parse(arguments)
    try:
        if options.action == "up":
            return _up(options)
        if options.action == "exec":
            return _exec(options.name, options.node, command)
        if options.action == "impair":
            print(impair_command.run(Lab.attach(options.name), options))
            return 0
        if options.action == "down":
            return _down(options.name)
        return _status()
    except DaemonError as error:
        print(f"tcpha.lab: {error}", file=sys.stderr)
        return 1
    except TcphaError as error:
        print(f"tcpha.lab: {error}", file=sys.stderr)
        return 2


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and what follows the first `--`: argparse itself would look for options in it."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    parser = _parser()
    options = parser.parse_args(words[:end])
    command = words[end + 1 :]
    if options.action == "exec" and not command:
        parser.error("exec needs a command: exec NODE -- CMD...")
    if options.action != "exec" and end < len(words):
        parser.error(f"{options.action} takes no command")
    return options, command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tcpha.lab",
        description="A cluster on one machine, in network namespaces: client, front end, back ends, plain servers.",
        epilog=_DOCUMENTS,
    )
    name = argparse.ArgumentParser(add_help=False)
    name.add_argument("--name", default=DEFAULT_NAME, help="which lab (default: %(default)s)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="up|exec|impair|down|status")
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
        help="tcphafe.conf; secret, state, iface and, if routed, forward are added",
    )
    up.add_argument("--be-conf", type=Path, metavar="FILE", help="tcphabe.conf; likewise, and raddr is each node's own")
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
    actions.add_parser("status", aliases=["ls"], help="list the labs that stand")
    return parser


def _up(options: argparse.Namespace) -> int:
    lab = Lab(options.name)
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
        print(_description(lab))
    except Interrupted as interruption:
        if lab.is_claimed:  # it came too late for `up`, or while that was taking down
            lab.down()
        print(f"tcpha.lab: interrupted; lab {lab.name} was not brought up", file=sys.stderr)
        return 128 + interruption.number
    return 0


def _exec(name: str, node: str, command: Sequence[str]) -> int:
    """Streams pass through; the terminal signals the command itself, other signals are passed on to it."""
    target = Lab.attach(name).node(node)
    try:
        child = target.popen(command)
    except (FileNotFoundError, PermissionError) as error:
        print(f"tcpha.lab: {command[0]}: {error.strerror}", file=sys.stderr)
        return _NO_COMMAND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE
    _pass_signals_to(child)
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


def _status() -> int:
    labs = cluster.standing(RUN_DIRECTORY)
    if not labs:
        print("no lab stands")
    for name in labs:
        if cluster.namespaces_of(name):
            print(_description(Lab.attach(name)))
        else:
            print(f"lab {name}: remains of it; take them down: python -m tcpha.lab down --name {name}")
    return 0


def _description(lab: Lab) -> str:
    plan = lab.plan
    lines = [f"lab {lab.name}, files in {lab.directory}", _row("VIP", str(plan.vip4), str(plan.vip6), "")]
    for place in plan.places:
        node = lab.nodes.get(place.node)
        where = f"namespace {node.namespace}" if node is not None else "missing"
        running = [daemon.program.name for daemon in node.daemons.values() if daemon.is_running] if node else []
        lines.append(_row(place.node, str(place.ipv4), str(place.ipv6), "  ".join([where, *running])))
    lines.extend(_router_rows(plan, lab.nodes.get(ROUTER)))
    lines.extend(impair_command.lines(lab))
    if "fe" in lab.nodes and lab.fe.engine.is_running:
        name_option = "" if lab.name == DEFAULT_NAME else f" --name {lab.name}"
        lines.append(f"try: python -m tcpha.lab exec{name_option} client -- curl -si http://{plan.vip4}/client")
    return "\n".join(lines)


def _router_rows(plan: Plan, router: Node | None) -> Iterator[str]:
    """One a segment: the router has an interface on each."""
    label, where = ROUTER, f"namespace {router.namespace}" if router is not None else "missing"
    for segment in plan.segments:
        if (place := segment.gateway) is not None:
            mtu = f"MTU {segment.mtu_octets}" if segment.mtu_octets < MTU_OCTETS else ""
            yield _row(label, str(place.ipv4), str(place.ipv6), f"{where}  {place.iface}  {mtu}")
            label, where = "", " " * len(where)


def _row(label: str, ipv4: str, ipv6: str, rest: str) -> str:
    return f"  {label:<8}{ipv4:<16}{ipv6:<20}{rest}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
