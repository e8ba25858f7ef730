"""The words of ``python -m tcpha.lab sim``: options in, what the model predicts out.

Must not know the model's formulae, or any lab.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Final

from tcpha.errors import StartError
from tcpha.lab import capacity_text
from tcpha.lab.capacity import SMALL_OCTETS, Site
from tcpha.lab.capacity_text import KB_OCTETS, Compared
from tcpha.lab.measured import IncompleteError, Source, built_in, read_costs, read_scaling
from tcpha.lab.traffic import Load

HELP = "predict how many requests a cluster answers, of tcpha and of a proxy, from measured costs"
EPILOG = (
    "It needs neither root nor a lab. docs/capacity.md has the formulae, what is assumed, and how to measure what it"
    " is compared with. Example: sim --backends 8 --object-kb 100 --link-gbit 1"
)
BUILT_IN: Final = "built-in"
RESULTS: Final = Path("bench/results.json")
BACK_ENDS_MAX: Final = 100_000
_OBJECT_KB_MAX = 1e9
_BACK_ENDS = 4
_LINK_GBIT = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `sim`."""
    parser.add_argument("--backends", type=_count, metavar="N", help=f"1 to N (default: {_BACK_ENDS})")
    parser.add_argument(
        "--object-kb", type=_object_kb, metavar="K", help="size of an answer's body in 1000 octets (default: 1)"
    )
    parser.add_argument("--requests-per-connection", type=_requests, metavar="R", help="1: no keep-alive (default: 1)")
    parser.add_argument("--link-gbit", type=_positive, metavar="G", help=f"of each node (default: {_LINK_GBIT:g})")
    parser.add_argument("--backend-cores", type=_count, metavar="C", help="of each back end (default: 1)")
    parser.add_argument("--proxy-threads", type=_count, metavar="T", help="of HAProxy, a core each (default: 1)")
    parser.add_argument(
        "--costs",
        metavar=f"FILE|{BUILT_IN}",
        help=f"results of python -m bench (default: {RESULTS} if it is there and complete, else {BUILT_IN})",
    )
    parser.add_argument(
        "--shared-cores", type=_count, metavar="C", help="all nodes and the client share C processors, as in a lab"
    )
    parser.add_argument(
        "--measured", type=Path, metavar="FILE", help="compare with these points of python -m bench.scaling"
    )


def run(options: argparse.Namespace) -> str:
    """What was asked for, in lines.

    Raises:
        StartError: a file cannot be used, or options exclude each other.
    """
    _check(options)
    source = costs_of(options.costs)
    load = Load(
        KB_OCTETS * (1.0 if options.object_kb is None else options.object_kb), options.requests_per_connection or 1.0
    )
    backends = options.backends or _BACK_ENDS
    lines = [f"Costs: {source.words}", capacity_text.costs_line(source.costs)]
    if options.measured is not None:
        lines += _compared(source, options.measured)
    elif options.shared_cores is not None:
        lines += capacity_text.of_shared_cores(source.costs, load, options.shared_cores, backends)
    else:
        gbit = options.link_gbit or _LINK_GBIT
        site = Site(gbit * 1e9, options.backend_cores or 1, options.proxy_threads or 1)
        lines += capacity_text.of_site(source.costs, load, site, backends)
    return "\n".join(lines)


def costs_of(given: str | None) -> Source:
    """Costs of a file's name, or `BUILT_IN`; None: of `RESULTS` if it is there and complete, else the built-in ones.

    Raises:
        StartError: the file cannot be used.
    """
    if given == BUILT_IN or (given is None and not RESULTS.exists()):
        return built_in()
    if given == "":
        raise StartError(f"--costs needs the name of a file, or {BUILT_IN}")
    if given is not None:
        return read_costs(Path(given))
    try:
        return read_costs(RESULTS)
    except IncompleteError as error:
        source = built_in()
        return replace(source, words=f"{source.words}, for {error}")


def _compared(source: Source, file: Path) -> list[str]:
    scaling = read_scaling(file)
    quiet = "a quiet machine" if scaling.is_quiet else f"a machine that was not quiet ({'; '.join(scaling.reasons)})"
    points = [
        Compared(
            each.backends,
            each.requests_per_s,
            each.lab_us,
            each.cores_left,
            each.fe_us,
            each.agents_us,
            each.servers_us,
        )
        for each in scaling.points
    ]
    return [
        f"Measured: {file}, {scaling.made}, {scaling.command}; {quiet}",
        f"Answers of 1 KB on new connections; {scaling.cores} processors shared by everybody",
        "",
        *capacity_text.of_measured(source.costs, Load(SMALL_OCTETS), points),
    ]


def _check(options: argparse.Namespace) -> None:
    of_nodes = {
        "--link-gbit": options.link_gbit,
        "--backend-cores": options.backend_cores,
        "--proxy-threads": options.proxy_threads,
    }
    of_load = {"--object-kb": options.object_kb, "--requests-per-connection": options.requests_per_connection}
    of_lab = {"--backends": options.backends, "--shared-cores": options.shared_cores}
    if options.measured is not None:
        _refuse("--measured", {**of_nodes, **of_load, **of_lab}, "the file says it")
    if options.shared_cores is not None:
        _refuse("--shared-cores", of_nodes, "there all nodes are one machine without wires")


def _refuse(option: str, others: dict[str, object], why: str) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise StartError(f"{option} goes without {' and '.join(given)}: {why}")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= BACK_ENDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {BACK_ENDS_MAX}")
    return int(text)


def _object_kb(text: str) -> float:
    if not 0 <= (value := _number(text)) <= _OBJECT_KB_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: 0 to {_OBJECT_KB_MAX:,.0f} KB")
    return value


def _requests(text: str) -> float:
    if not 1 <= (value := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} requests per connection: 1 or more")
    return value


def _positive(text: str) -> float:
    if not 0 < (value := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number above 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
