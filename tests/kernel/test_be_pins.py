"""What a back end's process finds pinned by an earlier one: gone on with, or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tcpha.errors import EdgeError
from tcpha.kernel import be_maps
from tcpha.kernel.be_maps import GENERATIONS, encode_number
from tcpha.lab import namespaces
from tcpha.net import bpf_adopter, bpf_attach, bpf_terms
from tcpha.net.bpf import BpfMap, BpfProgram
from tcpha.net.bpf_adopter import PROGRAMS, Adopter
from tcpha.net.bpf_attach import Link, attach_tcx
from tcpha.net.bpf_object import ObjectFile
from tcpha.net.bpf_terms import Terms
from tests.kernel.conftest import unique_name
from tests.kernel.frames import KEYRING, MARK, PERIOD, RETRY_MARK

pytestmark = pytest.mark.kernel

FLOWS = next(each.shape for each in ObjectFile(PROGRAMS).maps if each.name == "flows")


@pytest.fixture
def place(adopting: None, bpffs: Path) -> Path:
    """Where nothing is pinned yet."""
    made = bpffs / "be"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def pins(place: Path) -> Path:
    """Where a process has pinned, and ended."""
    opened(place).close()
    return place


def opened(place: Path, mark: int = MARK) -> Adopter:
    return Adopter((bytes(4), 666), KEYRING, mark=mark, retry_mark=RETRY_MARK, pins=place)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def kernel_id(of: BpfMap) -> bytes:
    """By which a map of maps tells of it."""
    (line,) = (each for each in Path(f"/proc/self/fdinfo/{of.fd}").read_text().splitlines() if "map_id" in each)
    return encode_number(int(line.split()[1]))


def refuse(*_: object) -> bool:
    raise EdgeError("no memory")


def test_same_terms_the_next_process_goes_on(pins: Path) -> None:
    found = BpfMap.pinned(pins / "flows", "flows", FLOWS)
    assert found is not None
    with found:
        found.update(bytes(FLOWS.key_octets), bytes(FLOWS.value_octets))
    again = opened(pins)
    assert [four_tuple for four_tuple, _ in again.flows()] == [bytes(FLOWS.key_octets)]
    again.close()


def test_map_of_the_same_shape_means_something_else_it_is_not_gone_on_with(
    pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(be_maps, "VERSION", be_maps.VERSION + 1)
    with pytest.raises(EdgeError, match=rf"version={be_maps.VERSION - 1}"):
        opened(pins)


def test_mark_was_another_it_is_not_gone_on_with_and_that_one_is_known(pins: Path) -> None:
    with pytest.raises(EdgeError, match=f"mark={MARK}"):
        opened(pins, MARK + 1)
    assert bpf_terms.left(pins) == Terms(be_maps.VERSION, MARK)


def test_pinned_by_a_version_that_noted_nothing_down_it_is_not_gone_on_with(pins: Path) -> None:
    (pins / "terms").unlink()
    with pytest.raises(EdgeError, match="another version"):
        opened(pins)
    assert bpf_terms.left(pins) is None


def test_map_has_another_shape_it_is_not_gone_on_with(pins: Path) -> None:
    """Somebody has forgotten to count the version."""
    (pins / "flows").unlink()
    with BpfMap.create("flows", replace(FLOWS, value_octets=24)) as other:
        other.pin(pins / "flows")
        with pytest.raises(EdgeError, match="another shape"):
            opened(pins)


def test_process_was_killed_before_it_pinned_the_rest_the_next_one_does(place: Path) -> None:
    bpf_terms.agree(place, Terms(be_maps.VERSION, MARK))
    opened(place).close()
    assert {"flows", "ran", "progress", "terms"} <= {each.name for each in place.iterdir()}


def test_directory_of_the_pins_goes_nothing_is_left_open_and_all_is_well_when_it_is_back(pins: Path) -> None:
    """What cannot be pinned is tried again five times a second."""
    adopter = opened(pins)
    adopter.renew(PERIOD)
    for each in pins.iterdir():
        each.unlink()
    pins.rmdir()
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(EdgeError, match="ran-"):
            adopter.renew(PERIOD + 1)
    assert open_descriptors() <= before
    pins.mkdir(mode=0o700)
    adopter.renew(PERIOD + 1)
    assert f"ran-{PERIOD + 3}" in {each.name for each in pins.iterdir()}
    adopter.close()


@pytest.mark.parametrize("what", ["update", "delete"])
def test_programs_cannot_be_told_of_another_period_once_they_are_when_it_is_tried_again(
    pins: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    adopter = opened(pins)
    adopter.renew(PERIOD)
    ran, before = adopter._maps["ran"], open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(ran, what, refuse)
        with pytest.raises(EdgeError, match="memory"):
            adopter.renew(PERIOD + GENERATIONS)
        assert open_descriptors() <= before
    adopter.renew(PERIOD + GENERATIONS)
    assert open_descriptors() == before
    told = {number: ran.lookup(encode_number(number)) for number in range(GENERATIONS)}
    known = {period % GENERATIONS: kernel_id(each) for period, each in adopter._generations.items()}
    assert {number: each for number, each in told.items() if each is not None} == known
    adopter.close()


@pytest.fixture
def cable() -> Iterator[None]:
    """A namespace with two interfaces."""
    name = unique_name()
    namespaces.create(name)
    with namespaces.inside(name):
        subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "name", "two"], check=True)
        yield
    namespaces.remove(name)


def places_of(pins: Path) -> list[str]:
    """At which interfaces the programs are that go on without a process."""
    found = [Link.pinned(pins / name) for name, _ in bpf_adopter._CARRYING]
    names = [socket.if_indextoname(each.iface_index()) for each in found if each is not None]
    for each in found:
        if each is not None:
            each.close()
    return names


def test_new_interface_takes_not_all_programs_those_of_the_earlier_one_go_on(
    place: Path, cable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = opened(place)
    earlier.attach("one")
    earlier.close()

    def attach(program: BpfProgram, *where: Any) -> Link:
        if program.name == bpf_adopter._ADOPTING[0]:
            raise EdgeError("no room")
        return attach_tcx(program, *where)

    following = opened(place)
    with monkeypatch.context() as failing:
        failing.setattr(bpf_attach, "attach_tcx", attach)
        with pytest.raises(EdgeError, match="no room"):
            following.attach("two")
    assert places_of(place) == ["one", "one"]
    following.attach("two")
    following.close()
    assert places_of(place) == ["two", "two"]
