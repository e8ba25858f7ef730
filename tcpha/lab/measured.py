"""Measured costs and points for the model: bench/results.json, bench/scaling.json, or the built-in costs.

Must not know what the model makes of them. docs/benchmark.md explains the first file, docs/capacity.md the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tcpha.errors import StartError
from tcpha.lab.capacity import Cost, Costs, fitted

SERVERS_SHARE: Final = 0.4
"""Of what a request costs servers and clients together, where the servers were not told apart: about what they have of
new connections (the built-in costs). On virtual links who sends pays for part of the receiver's work."""
SCALING_SCHEMA: Final = 1
_HOW = "python -m bench --quick measures all of it"
_COSTS, _POINTS = "python -m bench", "python -m bench.scaling"
_BALANCERS = {"front_end": ("tcpha", "_fe"), "agent": ("tcpha", "_be"), "proxy": ("haproxy", "")}
"""Whose figures, and which role's."""

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class IncompleteError(StartError):
    """Results that lack a workload or a contender that the model needs."""


@dataclass(frozen=True, slots=True)
class Source:
    """Costs, and where they come from."""

    costs: Costs
    words: str


@dataclass(frozen=True, slots=True)
class _Three:
    """One process in the three workloads."""

    close_us: float
    keepalive_us: float
    s_per_gb: float

    @property
    def cost(self) -> Cost:
        return fitted(self.close_us, self.keepalive_us, self.s_per_gb)


class _Extent(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    median: Annotated[float, Field(allow_inf_nan=False)]
    """Differences of what was measured, such as a flood's costs, may be a little below 0; what is needed may not."""


class _Noise(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    is_quiet: bool


class _Results(BaseModel):
    """What the model needs of bench/results.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Annotated[int, Field(ge=1, le=1)]
    made: str
    noise: _Noise
    figures: Mapping[str, Mapping[str, Mapping[str, _Extent]]]


class Point(BaseModel):
    """So many back ends, under as much load as they take; medians over rounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backends: Annotated[int, Field(ge=1)]
    requests_per_s: _Positive
    low_per_s: _Positive
    high_per_s: _Positive
    fe_us: _Positive
    """CPU per request, here and below."""
    agents_us: _Positive
    servers_us: _Positive
    lab_us: _Positive
    """Of everybody, clients included."""
    cores_left: _Positive
    """Of the machine's processors, without what others used meanwhile."""


class Scaling(BaseModel):
    """bench/scaling.json: requests of 1 KB, each on a new connection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Annotated[int, Field(ge=SCALING_SCHEMA, le=SCALING_SCHEMA)] = SCALING_SCHEMA
    made: str
    command: str
    machine: dict[str, str | int | bool]
    cores: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]
    is_quiet: bool
    reasons: list[str]
    points: Annotated[list[Point], Field(min_length=1)]


_Model = TypeVar("_Model", bound=BaseModel)


def built_in() -> Source:
    """Costs for who has no file, of two short runs on a machine that was not quiet.

    python -m bench --quick --rounds 1 --seconds 1 --workloads close download; what belongs to keep-alive, of an earlier
    version: python -m bench --workloads keepalive --contenders direct haproxy tcpha --rounds 2 --seconds 3. 2 shared
    processors (Xeon), Linux 6.18, CPython 3.11, HAProxy 2.6, nginx 1.22.
    """
    three = {
        "front_end": _Three(192, 45, 0.59),
        "agent": _Three(230, 82, 1.51),
        "proxy": _Three(56, 22, 3.89),
    }
    direct = _Three(62, 25, 0.63)
    servers = _Three(25, SERVERS_SHARE * direct.keepalive_us, 0.20)
    return Source(_costs(three, servers, direct), "built-in, of short runs on a noisy machine (docs/capacity.md)")


def read_costs(file: Path) -> Source:
    """Costs of bench/results.json.

    Raises:
        IncompleteError: it lacks a workload or a contender that the model needs.
        StartError: it cannot be read, or is no such file.
    """
    found = _read(file, _Results, _COSTS)

    def figure(workload: str, contender: str, name: str) -> float:
        try:
            median = found.figures[workload][contender][name].median
        except KeyError:
            raise IncompleteError(f"{file}: no figure {workload} {contender} {name}; {_HOW}") from None
        if median < 0:
            raise StartError(f"{file}: figures.{workload}.{contender}.{name}.median: it is below 0")
        return median

    three = {role: _of_balancer(figure, *whose) for role, whose in _BALANCERS.items()}
    direct = _Three(
        figure("close", "direct", "lab_us_per_request"),
        figure("keepalive", "direct", "lab_us_per_request"),
        _lab_s_per_gb(figure),
    )
    try:
        servers = _Three(
            figure("close", "direct", "servers_us_per_request"),
            figure("keepalive", "direct", "servers_us_per_request"),
            figure("download", "direct", "servers_s_per_gb"),
        )
        told = ""
    except IncompleteError:
        servers = _share_of_servers(direct)
        told = f"; servers not told apart there: {SERVERS_SHARE:.0%} of servers and clients together"
    quiet = "a quiet machine" if found.noise.is_quiet else "a machine too noisy to trust it"
    return Source(_costs(three, servers, direct), f"{file}, {found.made}, {quiet}{told}")


def read_scaling(file: Path) -> Scaling:
    """bench/scaling.json.

    Raises:
        StartError: it cannot be read, or is no such file.
    """
    return _read(file, Scaling, _POINTS)


def _of_balancer(figure: Callable[[str, str, str], float], contender: str, role: str) -> _Three:
    return _Three(
        figure("close", contender, f"cpu_us_per_request{role}"),
        figure("keepalive", contender, f"cpu_us_per_request{role}"),
        figure("download", contender, f"cpu_s_per_gb{role}"),
    )


def _lab_s_per_gb(figure: Callable[[str, str, str], float]) -> float:
    """Servers and clients; the file has their CPU of a window, and the window's octets."""
    octets = figure("download", "direct", "payload_octets")
    if octets <= 0:
        raise StartError(f"figure download direct payload_octets is {octets:g}; {_HOW}")
    return figure("download", "direct", "lab_s") * 1e9 / octets


def _share_of_servers(direct: _Three) -> _Three:
    """The servers' part of servers and clients."""
    return _Three(*(SERVERS_SHARE * part for part in (direct.close_us, direct.keepalive_us, direct.s_per_gb)))


def _costs(three: Mapping[str, _Three], servers: _Three, direct: _Three) -> Costs:
    """`direct`: servers and clients together."""
    clients = _Three(
        max(0.0, direct.close_us - servers.close_us),
        max(0.0, direct.keepalive_us - servers.keepalive_us),
        max(0.0, direct.s_per_gb - servers.s_per_gb),
    )
    return Costs(
        front_end=three["front_end"].cost,
        agent=three["agent"].cost,
        proxy=three["proxy"].cost,
        server=servers.cost,
        client=clients.cost,
    )


def _read(file: Path, model: type[_Model], maker: str) -> _Model:
    """`maker`: the command that writes such files. Raises StartError if this is none."""
    try:
        text = file.read_text()
        return model.model_validate_json(text)
    except OSError as error:
        raise StartError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"{file}: is no text") from error
    except ValidationError as error:
        if hint := _other_kind(text, maker):
            raise StartError(f"{file} is no result of {maker}, but of {hint}") from error
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StartError(f"{file}: {where + ': ' if where else ''}{first['msg']}") from error


def _other_kind(text: str, maker: str) -> str | None:
    """Of which other command a file is, and what it is good for; None if it is not known."""
    other: type[BaseModel] = Scaling if maker == _COSTS else _Results
    hint = f"{_POINTS}: use --measured" if maker == _COSTS else f"{_COSTS}: use --costs"
    try:
        other.model_validate_json(text)
    except ValidationError:
        return None
    return hint
