"""What the container's words mean: ``fe`` or ``be [SERVER [ARGUMENT...]]``, and how a start ends that fails."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tcpha import __version__
from tcpha.container import process
from tcpha.container.health import RUN
from tcpha.container.preparation import agent_command, prepare, server_command
from tcpha.container.settings import Role
from tcpha.container.supervision import Child
from tcpha.errors import ConfigError, StartError

ETC = Path("/etc/tcpha")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, run the children, return the container's exit status."""
    options = _parse(arguments)
    role: Role = options.role
    try:
        prepared = prepare(role, os.environ, ETC, RUN)
        for warning in prepared.warnings:
            process.say(f"warning: {warning}")
        commands: dict[Child, Sequence[str]] = {}
        if options.server:
            commands["server"] = server_command(options.server, os.environ)
        if options.check:
            process.say("configuration ok")
            return 0
        commands["agent"] = agent_command(role, sys.executable, prepared.file)
        return process.run(commands)
    except (ConfigError, StartError) as error:
        process.say(str(error))
        return 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tcpha.container",
        description="Runs one node of a tcpha cluster as process 1 of a container.",
        epilog="Configuration: /etc/tcpha/tcphafe.conf or tcphabe.conf if mounted (or TCPHA_CONFIG), else variables"
        " TCPHA_RADDR, TCPHA_VADDR, TCPHA_SERVERS, TCPHA_RULES and so on. Secret: a file, TCPHA_SECRET_FILE. SIGTERM,"
        " SIGINT, SIGQUIT stop agent and server; SIGUSR1 logs counters; SIGHUP goes to the server. Exit status: 0 when"
        " stopped; that of an agent or server that ended by itself (1 if that was 0); 2 for a fault at start.",
    )
    parser.add_argument("--version", action="version", version=f"tcpha {__version__}")
    parser.add_argument("--check", action="store_true", help="only validate what the container was given")
    parser.add_argument("role", choices=["fe", "be"])
    parser.add_argument(
        "server", nargs=argparse.REMAINDER, metavar="SERVER", help="what runs beside the agent, with its arguments"
    )
    return parser.parse_args(arguments)
