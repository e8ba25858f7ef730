"""The files in etc/: all load, and the .detail files explain every key with its true default and bounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from tcpha.config import BackEndConfig, FrontEndConfig, NodeConfig, load_back_end, load_front_end
from tcpha.config_values import parse_duration_s, parse_size

ETC = Path(__file__).parents[2] / "etc"
ROLES: list[tuple[str, type[NodeConfig], Callable[[Path], NodeConfig]]] = [
    ("tcphafe.conf", FrontEndConfig, load_front_end),
    ("tcphabe.conf", BackEndConfig, load_back_end),
]
COMPUTED = {"iface", "id", "uaddr", "mtu"}
"""Keys whose default follows from another, or is no value that a file could hold."""
DIFFERENT = {"raddr", "id", "port", "queue"}
"""Keys of both roles whose explanation differs."""
FIELDS = [(name, key) for name, model, _ in ROLES for key in model.model_fields]
OPTIONAL = [
    (name, key) for name, model, _ in ROLES for key, info in model.model_fields.items() if not info.is_required()
]


def detail(name: str) -> str:
    return (ETC / f"{name}.detail").read_text(encoding="utf-8")


def explanation(name: str, key: str) -> tuple[str, list[str]]:
    """The comment that explains a key, and the lines that follow it: the key itself, perhaps commented out."""
    blocks = re.findall(rf"(?m)^# {key}: ((?:.|\n# )*)\n((?:#?{key} = .+\n?)+)", detail(name))
    assert len(blocks) == 1, f"{key} is explained {len(blocks)} times in {name}.detail"
    return blocks[0][0].replace("\n# ", " "), blocks[0][1].splitlines()


def field(name: str, key: str) -> FieldInfo:
    return next(model for other, model, _ in ROLES if other == name).model_fields[key]


def bounds(annotation: object) -> Iterator[object]:
    """All constraints in an annotation, at any depth."""
    for part in get_args(annotation):
        if isinstance(part, FieldInfo):
            yield from part.metadata
        yield from bounds(part)


@pytest.mark.parametrize(("name", "model", "load"), ROLES)
def test_example_loads_without_warnings(name: str, model: type[NodeConfig], load: Callable[[Path], NodeConfig]) -> None:
    assert type(load(ETC / name)) is model
    assert load(ETC / name).warnings() == ()
    assert load(ETC / f"{name}.detail") == load(ETC / name)


def test_examples_of_both_roles_agree() -> None:
    assert load_front_end(ETC / "tcphafe.conf").digest() == load_back_end(ETC / "tcphabe.conf").digest()


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_every_key_is_explained_and_says_whether_it_is_required_and_may_repeat(name: str, key: str) -> None:
    text, lines = explanation(name, key)
    info = field(name, key)
    may_repeat = str(info.annotation).startswith("tuple")
    assert ("Required" in text) == info.is_required()
    assert ("Default" in text) == (not info.is_required())
    assert ("may repeat" in text.lower()) == may_repeat
    assert all(line.startswith("#") for line in lines) == (not info.is_required() and key != "uaddr")


@pytest.mark.parametrize(("name", "model", "load"), ROLES)
def test_every_value_that_is_commented_out_is_the_default(
    name: str, model: type[NodeConfig], load: Callable[[Path], NodeConfig], tmp_path: Path
) -> None:
    plain = load(ETC / f"{name}.detail")
    full = tmp_path / name
    full.write_text(re.sub(r"(?m)^#(?=\w+ = )", "", detail(name)), encoding="utf-8")
    given = load(full)
    assert given.model_fields_set == set(model.model_fields)
    assert {key for key in model.model_fields if getattr(plain, key) != getattr(given, key)} <= {"iface", "mtu"}


@pytest.mark.parametrize(("name", "key"), [pair for pair in OPTIONAL if pair[1] not in COMPUTED])
def test_default_in_the_text_is_the_value_below_it(name: str, key: str) -> None:
    text, lines = explanation(name, key)
    stated = re.search(r"Default:? (.*?)\.?$", text)
    assert stated is not None
    assert lines[0].partition(" = ")[2] in stated[1].replace(";", "").split()


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_range_in_the_text_is_the_models(name: str, key: str) -> None:
    text, _ = explanation(name, key)
    info = field(name, key)
    constraints = [*info.metadata, *bounds(info.annotation)]
    least = [constraint.ge for constraint in constraints if isinstance(constraint, Ge)]
    most = [constraint.le for constraint in constraints if isinstance(constraint, Le)]
    stated = re.search(r"Range (\w+)\.\.(\w+)\.", text)
    if stated is None:
        assert not least
        return
    read: Callable[[str], float] = parse_duration_s if info.annotation is float else parse_size
    if key.endswith("mark"):
        read = lambda text: int(text, 0)  # noqa: E731
    assert [[read(stated[1])], [read(stated[2])]] == [least, most]


@pytest.mark.parametrize("key", sorted(NodeConfig.model_fields.keys() - DIFFERENT))
def test_key_of_both_roles_is_explained_alike(key: str) -> None:
    assert explanation("tcphafe.conf", key) == explanation("tcphabe.conf", key)
