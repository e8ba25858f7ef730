"""Environment variables of a container -> the text of a configuration file, and errors that name the variable.

Pure. Must not know what a key means, only which there are and which may repeat: that it takes from the models. A key is
the variable TCPHA_KEY; the two that a cluster always has several of, `server` and `rule`, are TCPHA_SERVERS and
TCPHA_RULES, and the secret is TCPHA_SECRET_FILE, so that nobody takes it for the secret itself. Variables that are
empty count as not set: that is what Compose makes of those that it does not find.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, get_origin

from tcpha.config import HANDOFF_PORT, BackEndConfig, FrontEndConfig, NodeConfig
from tcpha.errors import ConfigError

Role = Literal["fe", "be"]

PREFIX: Final = "TCPHA_"
CONFIG: Final = "TCPHA_CONFIG"
"""Where the configuration file is, if it is a file."""
SECRET_FILE: Final = "TCPHA_SECRET_FILE"  # noqa: S105  # a name
MAKE_SECRET: Final = "TCPHA_MAKE_SECRET"  # noqa: S105  # a name
"""`yes`: who finds no secret makes it."""
SERVER_USER: Final = "TCPHA_SERVER_USER"
"""Who runs the server beside the agent."""
SECRET: Final = "TCPHA_SECRET"  # noqa: S105  # a name that is refused
MODELS: Final[Mapping[Role, type[NodeConfig]]] = {"fe": FrontEndConfig, "be": BackEndConfig}

_OF_THE_CONTAINER: Final = (CONFIG, MAKE_SECRET, SERVER_USER)
_NAMES: Final = {"server": "TCPHA_SERVERS", "rule": "TCPHA_RULES", "secret": SECRET_FILE}
_WITH_PORT: Final = ("server", "fe")
_COLUMN: Final = re.compile(r"\(column (\d+)\)$")
_SECRET_LINE: Final = re.compile(r"(?m)^[ \t]*secret[ \t]*=.*$")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a line of the configuration comes from: variable, line in its value (from 1), characters put before it."""

    key: str
    variable: str
    line: int
    shift: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The text of a configuration file, and for each of its lines what it was made of."""

    text: str
    origins: tuple[Origin | None, ...]

    def located(self, error: ConfigError) -> ConfigError:
        """Return the same fault, told of the variable instead of the line of this text."""
        origin = self.origins[error.line - 1] if error.line is not None else None
        if origin is None:
            return ConfigError("environment", None, error.reason)
        reason = error.reason.removeprefix(f"{origin.key}: ")
        reason = _COLUMN.sub(lambda found: f"(column {max(1, int(found[1]) - origin.shift)})", reason)
        return ConfigError(origin.variable, origin.line, reason)


def variable_of(key: str) -> str:
    """Return the name of the variable for a key of the configuration."""
    return _NAMES.get(key, PREFIX + key.upper())


def given(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that would make up a configuration, sorted.

    The file of the secret is not one of them: it may be told beside a configuration file as well.
    """
    apart = (*_OF_THE_CONTAINER, SECRET_FILE)
    return tuple(
        sorted(
            name for name in environment if name.startswith(PREFIX) and name not in apart and environment[name].strip()
        )
    )


def configuration_of(role: Role, environment: Mapping[str, str]) -> Generated:
    """Return the configuration that the variables say.

    Addresses may be parted by commas or line ends, rules by line ends only. A server or front end without a port has
    the default one. Whether values make sense is not looked at.

    Raises: ConfigError, with the variable in the place of the file: one that is no key of this role, is missing, or
    holds the secret itself.
    """
    model = MODELS[role]
    keys = {variable_of(key): key for key in model.model_fields}
    _refuse_secret(environment)
    for name in given(environment):
        if name not in keys:
            raise ConfigError(name, None, _unknown(name, role, keys))
    lines = ["# Made from environment variables at the start of the container."]
    origins: list[Origin | None] = [None]
    for name, key in keys.items():
        value = environment.get(name, "")
        if not value.strip():
            if model.model_fields[key].is_required():
                raise ConfigError(name, None, f"not set; needed, unless a tcpha{role}.conf is mounted")
            continue
        for number, part, column in _parts(name, key, value, may_repeat=_may_repeat(model, key)):
            start = f"{key} = "
            lines.append(start + (_with_port(part) if key in _WITH_PORT else part))
            origins.append(Origin(key, name, number, len(start) - column))
    return Generated("".join(f"{line}\n" for line in lines), tuple(origins))


def refuse_both(environment: Mapping[str, str], file: str) -> None:
    """Raise ConfigError if variables say what a mounted file says too: nobody could tell which counts."""
    _refuse_secret(environment)
    if names := given(environment):
        raise ConfigError(names[0], None, f"is set, but there is {file} as well: either the file or variables")


def with_secret(text: str, path: str) -> str:
    """Return a configuration's text with another `secret`; no line changes its number."""
    line = f"secret = {path}"
    if _SECRET_LINE.search(text):
        return _SECRET_LINE.sub(lambda _: line, text, count=1)
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"


def is_yes(environment: Mapping[str, str], name: str) -> bool:
    """Return what a switch says; not set: no. Raises: ConfigError."""
    value = environment.get(name, "").strip().lower()
    if value not in ("", "yes", "on", "true", "no", "off", "false"):
        raise ConfigError(name, None, f"{value[:60]!r} is neither yes nor no")
    return value in ("yes", "on", "true")


def _refuse_secret(environment: Mapping[str, str]) -> None:
    if environment.get(SECRET, "").strip():
        # Who may look at a container sees its environment, and so do its children. Never shown: what is in it.
        raise ConfigError(
            SECRET, None, f"a secret is never taken from the environment: put it in a file and set {SECRET_FILE}"
        )


def _unknown(name: str, role: Role, keys: Mapping[str, str]) -> str:
    other: Role = "be" if role == "fe" else "fe"
    if name in {variable_of(key) for key in MODELS[other].model_fields}:
        return f"is for a {'back' if other == 'be' else 'front'} end only"
    # Without the part that all have: else any two would be alike.
    suffixes = [known.removeprefix(PREFIX) for known in (*keys, *_OF_THE_CONTAINER)]
    near = get_close_matches(name.removeprefix(PREFIX), suffixes, n=1)
    return "no such variable" + (f": did you mean {PREFIX}{near[0]}?" if near else "")


def _may_repeat(model: type[NodeConfig], key: str) -> bool:
    return get_origin(model.model_fields[key].annotation) is tuple


def _parts(name: str, key: str, value: str, *, may_repeat: bool) -> Iterator[tuple[int, str, int]]:
    """Yield the values in a variable: line, text, and column of the text in its line, from 0."""
    lines = [(number, line) for number, line in enumerate(value.split("\n"), start=1) if line.strip()]
    if not may_repeat and len(lines) > 1:
        raise ConfigError(name, lines[1][0], "one value only")
    for number, line in lines:
        pieces = line.split(",") if may_repeat and key != "rule" else [line]
        for piece in pieces:
            if piece.strip():
                yield number, piece.strip(), len(line) - len(line.lstrip())


def _with_port(text: str) -> str:
    address, *rest = text.split()
    if rest and "=" not in rest[0]:
        return text
    return " ".join((address, str(HANDOFF_PORT), *rest))
