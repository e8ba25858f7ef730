"""The operator's command `python -m tcpha`: the first word says what to do.

Must not load what a command does not need, least of all the processes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from tcpha import __version__, route
from tcpha.invocation import command, status_of

_PROGRAMS = {
    "tcpha.fe": "the front end: answers the virtual addresses and hands connections off",
    "tcpha.be": "a back end: rebuilds handed-off connections beside an unmodified server",
    "tcpha.lab": "a whole cluster in network namespaces on one machine",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. Without a command: say which there are."""
    parser = argparse.ArgumentParser(
        prog=command("tcpha"),
        description="The operator's command of tcpha.",
        epilog=_programs(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    route_parser = commands.add_parser("route", help="which server would be chosen for a request, and why")
    route.add_options(route_parser)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        (parser if options.command is None else route_parser).error(_refusal(options, unknown))
    if options.command is None:
        parser.print_help()
        return 0
    return route.run(options)


def _refusal(options: argparse.Namespace, unknown: Sequence[str]) -> str:
    """What is wrong with arguments nobody takes: most often the shell took a request apart."""
    words = [word for word in unknown if not word.startswith("-")]
    request = getattr(options, "request", None)
    hint = (
        f"; quote it: {shlex.quote(' '.join([request, *words]))}"
        if request is not None and words == list(unknown)
        else ""
    )
    return f"unrecognized arguments: {' '.join(unknown)}{hint}"


def _programs() -> str:
    lines = [f"  {command(program):<{len(command('tcpha.lab'))}}   {what}" for program, what in _PROGRAMS.items()]
    return "\n".join(["The programs of a cluster, each with -h:", *lines])


if __name__ == "__main__":
    sys.exit(status_of(main))
