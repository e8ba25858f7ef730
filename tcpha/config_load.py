"""Entries of a file -> a model, and what is wrong with them -> one `ConfigError` that names the line.

Knows no key: which keys there are, and which may repeat (fields that are tuples), it takes from the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tcpha.config_checks import Fault
from tcpha.config_file import Entry, read_entries
from tcpha.config_values import shown
from tcpha.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model], elsewhere: Mapping[str, str]) -> Model:
    """Read a file into a model. `elsewhere`: keys of other files, and whose they are, for the message.

    Where several lines are at fault, the first is named. Raises: ConfigError on any fault.
    """
    lines = _lines_of_keys(path, model, elsewhere)
    try:
        return model.model_validate({key: _value(model, key, entries) for key, entries in lines.items()})
    except ValidationError as error:
        faults = [_located(fault, lines, model) for fault in error.errors(include_url=False)]
    # A missing key has no line; what is wrong in a line comes first.
    line, reason = min(faults, key=lambda fault: (fault[0] is None, fault[0] or 0))
    raise ConfigError(path, line, reason)


def _lines_of_keys(path: Path, model: type[BaseModel], elsewhere: Mapping[str, str]) -> dict[str, list[Entry]]:
    lines: dict[str, list[Entry]] = {}
    for entry in read_entries(path, verbatim={"rule"}):
        if entry.key not in model.model_fields:
            raise ConfigError(path, entry.line, _unknown(entry.key, model, elsewhere))
        if entry.key in lines and not _may_repeat(model, entry.key):
            first = lines[entry.key][0].line
            raise ConfigError(path, entry.line, f"{entry.key} is given twice, first in line {first}")
        lines.setdefault(entry.key, []).append(entry)
    return lines


def _may_repeat(model: type[BaseModel], key: str) -> bool:
    return get_origin(model.model_fields[key].annotation) is tuple


def _unknown(key: str, model: type[BaseModel], elsewhere: Mapping[str, str]) -> str:
    if key in elsewhere:
        return f"{key} is a key of the {elsewhere[key]}'s file only"
    near = get_close_matches(key[:60].lower(), model.model_fields, n=1)
    return f"unknown key {shown(key)}" + (f": did you mean {near[0]}?" if near else "")


def _value(model: type[BaseModel], key: str, entries: list[Entry]) -> object:
    if key == "rule":
        # A rule remembers its line and points at a column in it.
        return entries
    values = [entry.value for entry in entries]
    return values if _may_repeat(model, key) else values[0]


def _located(fault: ErrorDetails, lines: Mapping[str, list[Entry]], model: type[BaseModel]) -> tuple[int | None, str]:
    """Find the line that a fault of a model stands in, and put the fault into words for a person."""
    context: dict[str, Any] = fault.get("ctx", {})
    cause = context.get("error")
    key, index = (*fault["loc"], 0, 0)[:2]
    places = cause.places if isinstance(cause, Fault) else ((str(key), index),)
    found = [lines[key][int(index)] for key, index in places if key in lines]
    entry = found[0] if found else None
    name = entry.key if entry is not None else str(places[0][0])
    text = shown(entry.value) if entry is not None else ""
    unit = " s" if name in model.model_fields and model.model_fields[name].annotation is float else ""
    return (entry.line if entry is not None else None), f"{name}: {_reason(fault, context, text, unit)}"


def _reason(fault: ErrorDetails, context: Mapping[str, Any], text: str, unit: str) -> str:
    match fault["type"]:
        case "missing":
            return "missing: the file must have this key"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"{text} is less than {context['ge']:.12g}{unit}, the least allowed"
        case "less_than_equal":
            return f"{text} is more than {context['le']:.12g}{unit}, the most allowed"
        case "literal_error":
            return f"{text} is not {context['expected']}"
        case _:
            return fault["msg"]
