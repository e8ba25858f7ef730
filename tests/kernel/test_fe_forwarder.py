"""The front end's table in the kernel: what goes in comes out again, many at once, and after a restart."""

from __future__ import annotations

import ctypes
import re
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tcpha.errors import EdgeError
from tcpha.kernel import fe_maps
from tcpha.kernel.be_maps import encode_endpoint, encode_number
from tcpha.kernel.fe_maps import BackEnd
from tcpha.lab import namespaces
from tcpha.lab.waiting import wait_until
from tcpha.net import bpf_attach, bpf_forwarder, bpf_object
from tcpha.net.bpf import BpfMap, MapShape, MapType
from tcpha.net.bpf_attach import Link
from tcpha.net.bpf_forwarder import PROGRAMS, Forwarder, obstacle
from tcpha.net.bpf_object import ObjectFile, load
from tcpha.net.bpf_syscall import Command, call
from tcpha.net.bpf_table import PLACES, Table
from tcpha.net.pins import clear
from tcpha.proto.ip import connection_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Identity
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import SeqNum
from tests.kernel.conftest import unique_name

pytestmark = pytest.mark.kernel

INSTRUCTIONS = 200_000
"""That many the verifier may walk through, a fifth of what it allows."""
KEYRING = Keyring((Key(1, bytes(range(32))),))
PROMISE = Promise(1460, 7, True, True)
NEAR: BackEnd = (ip_address("198.18.0.33").packed, 666)
FAR: BackEnd = (ip_address("2001:db8::38").packed, 667)
MAC = bytes.fromhex("020000000033")
STANDING_AT = 34
"""In an entry of `flows`."""
PATIENCE_S = 5.0
_TCX_INGRESS, _COUNT_AT = 46, 24


@pytest.fixture
def inside(fe_bpf: None) -> Iterator[None]:
    name = unique_name()
    namespaces.create(name)
    with namespaces.inside(name):
        yield
    namespaces.remove(name)


@pytest.fixture
def forwarder(inside: None) -> Iterator[Forwarder]:
    opened = Forwarder("lo", KEYRING, PROMISE, 65535)
    opened.set_neighbour(NEAR, MAC)
    yield opened
    opened.close()


def identity(number: int, family: int = 4) -> Identity:
    client, vip = ("192.0.2.10", "198.18.0.36") if family == 4 else ("2001:db8:c::a", "2001:db8::24")
    port = number & 0xFFFF
    irs = SeqNum(number * 7 & 0xFFFFFFFF)
    return Identity(
        connection_key(ip_address(client), port, ip_address(vip), 80), irs, SeqNum(0xFFFFFF00 + number % 256)
    )


# --- what the verifier and the source say


def test_program_is_loaded_the_verifier_is_not_near_its_limit(fe_bpf: None) -> None:
    with load(PROGRAMS) as loaded:
        walked = loaded.programs["fe_ingress"].verified_instructions()
    if not walked:
        pytest.skip("this kernel does not say how far its verifier went")
    assert walked <= INSTRUCTIONS


def test_counts_have_the_names_of_the_source() -> None:
    source = PROGRAMS.with_name("fe.h").read_text()
    listed = re.search(r"enum count \{([^}]*)COUNTS", source)
    assert listed is not None
    assert tuple(word.lower() for word in re.findall(r"\w+", listed[1])) == fe_maps.COUNTS


def test_maps_have_the_sizes_that_python_writes() -> None:
    shapes = {each.name: each.shape for each in ObjectFile(PROGRAMS).maps}
    assert shapes["flows"].key_octets == fe_maps.TUPLE_OCTETS
    assert shapes["flows"].value_octets == fe_maps.FLOW_OCTETS
    assert len(encode_endpoint(*NEAR)) == shapes["targets"].key_octets
    assert len(fe_maps.encode_config(MAC, PROMISE, 65535)) == shapes["config"].value_octets
    assert len(fe_maps.encode_times(1, 2, 3)) == shapes["times"].value_octets
    assert {len(each) for each in fe_maps.encode_keys(KEYRING)} == {shapes["keys"].value_octets}
    assert shapes["ways"].max_entries == fe_maps.WAYS
    assert shapes["counts"].max_entries == len(fe_maps.COUNTS)


def test_pinned_maps_are_those_that_the_source_names() -> None:
    pinned = {each.name for each in ObjectFile(PROGRAMS).maps if each.is_pinned}
    assert pinned == set(bpf_forwarder.PINNED) - {"link", "terms", "namespace"}
    assert "keys" not in pinned  # they end with the program


# --- flows


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("noted", [(), (5,), (5, 0xFFFFFFFF)])
def test_flow_is_carried_it_is_read_as_it_was_written(
    forwarder: Forwarder, family: int, noted: tuple[int, ...]
) -> None:
    who = identity(40000, family)
    assert forwarder.look_up(who.key) is None
    assert forwarder.carry(who, NEAR, 53125000, 0xFFFFFFFE, 1234.5, noted)
    known = forwarder.look_up(who.key)
    assert known is not None
    assert (known.identity, known.period, known.last_ack, known.noted) == (who, 53125000, 0xFFFFFFFE, noted)
    assert (known.last_seen_s, known.is_held) == (1234.5, False)
    forwarder.hold_flow(who, 53125000, 7, 1.0)
    assert [each.is_held for each in forwarder.flows()] == [True]
    assert [forwarder.forget(who.key), forwarder.forget(who.key)] == [True, False]


def test_many_flows_are_listed_and_forgotten_at_once(forwarder: Forwarder) -> None:
    wanted = {identity(number, 4 if number % 3 else 6) for number in range(10_000)}
    for who in wanted:
        forwarder.carry(who, NEAR, 1, 1, 1.0)
    assert {each.identity for each in forwarder.flows()} == wanted
    gone = [who.key for who in wanted if who.irs % 2]
    strangers = [identity(60_000 + number).key for number in range(5)]
    assert forwarder.forget_all([*strangers[:2], *gone[:10], *strangers[2:], *gone[10:]]) == len(gone)
    assert {each.identity for each in forwarder.flows()} == {who for who in wanted if not who.irs % 2}
    assert forwarder.forget_all([]) == 0


@pytest.mark.parametrize("family", [4, 6])
def test_flows_begin_by_one_call_they_are_as_if_each_were_carried(forwarder: Forwarder, family: int) -> None:
    flows = [(identity(number, family), NEAR, number, 7, 1234.5, (5,) * (number % 3)) for number in range(1, PLACES)]
    assert forwarder.begin_all([flows[0]] * PLACES + flows[1:]) == PLACES, "the rest would have no place"
    assert [each.identity for each in forwarder.flows()] == [flows[0][0]]
    assert forwarder.begin_all(flows) == len(flows)
    begun = {each.identity: each for each in forwarder.flows()}
    for flow in flows:
        forwarder.carry(*flow, confirmed=False)
    assert {each.identity: each for each in forwarder.flows()} == begun
    assert len(begun) == len(flows)
    assert not any(each.is_confirmed or each.is_held for each in begun.values())


def test_table_is_full_a_flow_stays_as_it_was(inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(path: Path, *, pins: Path | None = None) -> bpf_object.Loaded:
        return load(path, pins=pins, entries={"flows": 2})

    monkeypatch.setattr(bpf_forwarder, "load", small)
    forwarder = Forwarder("lo", KEYRING, PROMISE, 65535)
    forwarder.set_neighbour(NEAR, MAC)
    assert forwarder.begin_all([(identity(number), NEAR, 1, 1, 1.0, ()) for number in range(4, 7)]) == 2
    assert forwarder.forget_all(identity(number).key for number in range(4, 7)) == 2
    assert [forwarder.carry(identity(number), NEAR, 1, 1, 1.0) for number in range(3)] == [True, True, False]
    forwarder.forget(identity(0).key)
    assert forwarder.carry(identity(2), NEAR, 1, 1, 1.0)
    forwarder.close()


def test_batch_meets_a_full_map_what_found_room_is_counted(inside: None) -> None:
    with BpfMap.create("few", MapShape(MapType.HASH, 4, 8, 3)) as few:
        table = Table(few)
        entries = [(encode_number(number), bytes(7) + bytes((number,))) for number in range(5)]
        assert table.update_all([]) == 0
        assert table.update_all(entries) == 3
        assert dict(table.items()) == dict(entries[:3])
        assert table.delete_all([key for key, _ in entries]) == 3


def test_map_is_closed_the_error_names_it(inside: None) -> None:
    few = BpfMap.create("few", MapShape(MapType.HASH, 4, 8, 3))
    table = Table(few)
    few.close()
    with pytest.raises(EdgeError, match=r"map_update_elem, few: Bad file descriptor"):
        table.update()


# --- what outlives the process


def opened(pins: Path) -> Forwarder:
    return Forwarder("lo", KEYRING, PROMISE, 65535, pins=pins)


def test_process_ends_the_next_one_finds_flows_and_ways(inside: None, bpffs: Path) -> None:
    pins = bpffs / "fe"
    first = opened(pins)
    for backend in (FAR, NEAR):
        first.set_neighbour(backend, MAC)
    first.carry(identity(1), NEAR, 9, 8, 7.0, (6,))
    first.carry(identity(2), FAR, 9, 8, 7.0)
    first.hold_flow(identity(3), 9, 8, 7.0)
    first.close()
    second = opened(pins)
    # Back ends may be listed in another order now, one may be gone, and what was held only the first one understood.
    second.set_neighbour((ip_address("198.18.0.99").packed, 666), MAC)
    ((backend, flow),) = second.retain([NEAR])
    assert (backend, flow.identity, flow.noted) == (NEAR, identity(1), (6,))
    assert [each.identity for each in second.flows()] == [identity(1)]
    second.close()
    clear(pins)
    assert not pins.exists()
    clear(pins)


def test_way_is_given_to_another_back_end_only_after_its_flows_are_gone(inside: None, bpffs: Path) -> None:
    pins = bpffs / "fe"
    first = opened(pins)
    first.set_neighbour(NEAR, MAC)
    first.carry(identity(1), NEAR, 1, 1, 1.0)
    first.close()
    second = opened(pins)
    second.set_neighbour(FAR, MAC)
    assert second._ways == {NEAR: 0, FAR: 1}
    assert second.retain([FAR]) == []
    assert list(second.flows()) == []
    second.set_neighbour(NEAR, MAC)
    assert second._ways == {FAR: 1, NEAR: 0}
    second.close()


def test_map_of_the_same_shape_means_something_else_it_is_not_gone_on_with(
    inside: None, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(bpffs / "fe").close()
    monkeypatch.setattr(fe_maps, "VERSION", fe_maps.VERSION + 1)
    with pytest.raises(EdgeError, match=rf"pinned on other terms .*version={fe_maps.VERSION - 1}"):
        opened(bpffs / "fe")


def test_pinned_by_a_version_that_noted_nothing_down_it_is_not_gone_on_with(inside: None, bpffs: Path) -> None:
    opened(bpffs / "fe").close()
    (bpffs / "fe" / "terms").unlink()
    with pytest.raises(EdgeError, match="another version"):
        opened(bpffs / "fe")


def test_flow_is_in_a_state_that_nobody_knows_it_is_forgotten(inside: None, bpffs: Path) -> None:
    """Somebody has forgotten to count the version."""
    first = opened(bpffs / "fe")
    first.set_neighbour(NEAR, MAC)
    for number in (1, 2):
        first.carry(identity(number), NEAR, 9, 8, 7.0)
    ((four_tuple, value),) = [each for each in first._flows.items() if each[1][8:12] == encode_number(identity(2).irs)]
    first._maps["flows"].update(four_tuple, value[:STANDING_AT] + b"\x09" + value[STANDING_AT + 1 :])
    first.close()
    second = opened(bpffs / "fe")
    assert [flow.identity for _, flow in second.retain([NEAR])] == [identity(1)]
    assert [each.identity for each in second.flows()] == [identity(1)]
    second.close()


def test_pins_are_for_root_alone(inside: None, bpffs: Path) -> None:
    pins = bpffs / "fe"
    forwarder = opened(pins)
    forwarder.attach()
    assert stat.S_IMODE(pins.stat().st_mode) == 0o700
    assert {each.name: stat.S_IMODE(each.stat().st_mode) for each in pins.iterdir()} == dict.fromkeys(
        bpf_forwarder.PINNED, 0o600
    )
    forwarder.detach()
    forwarder.close()


def test_program_of_an_interface_that_is_no_longer_ours_is_taken_away(inside: None, bpffs: Path) -> None:
    subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "name", "two"], check=True)
    pins = bpffs / "fe"
    for iface in ("one", "two", "two"):
        forwarder = Forwarder(iface, KEYRING, PROMISE, 65535, pins=pins)
        forwarder.attach()
        forwarder.close()
        assert _attached_only_at(iface)
    subprocess.run(["ip", "link", "del", "one"], check=True)
    subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "name", "two"], check=True)
    forwarder = Forwarder("one", KEYRING, PROMISE, 65535, pins=pins)
    forwarder.attach()
    assert _tcx("one")
    forwarder.detach()
    forwarder.close()
    assert not _tcx("one")


@pytest.mark.parametrize("step", ["attach", "pin"])
def test_new_interface_takes_no_program_that_of_the_earlier_one_goes_on(
    inside: None, bpffs: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "name", "two"], check=True)
    pins = bpffs / "fe"
    earlier = Forwarder("one", KEYRING, PROMISE, 65535, pins=pins)
    earlier.attach()
    earlier.close()

    def refuse(*_: object) -> None:
        raise EdgeError("no room")

    following = Forwarder("two", KEYRING, PROMISE, 65535, pins=pins)
    with monkeypatch.context() as failing:
        failing.setattr(*((bpf_attach, "attach_tcx", refuse) if step == "attach" else (Link, "pin", refuse)))
        with pytest.raises(EdgeError, match="no room"):
            following.attach()
    assert _attached_only_at("one")
    assert {each.name for each in pins.iterdir()} == set(bpf_forwarder.PINNED)
    (pins / "link-new").symlink_to("link")  # as a process leaves it that is killed while it pins
    following.attach()
    following.close()
    assert _attached_only_at("two")
    assert {each.name for each in pins.iterdir()} == set(bpf_forwarder.PINNED)


def test_reasons_against_it_are_told(inside: None) -> None:
    assert obstacle() is None
    with pytest.raises(EdgeError, match="there is no interface none0"):
        Forwarder("none0", KEYRING, PROMISE, 65535)


def _attached_only_at(iface: str) -> bool:
    """Is it, of "one" and "two"? The kernel takes a link away a moment after its last pin."""
    wanted = {each: each == iface for each in ("one", "two")}
    return wait_until(lambda: {each: _tcx(each) for each in wanted} == wanted, PATIENCE_S)


def _tcx(iface: str) -> bool:
    """Is a program at the ingress of an interface?"""
    ids = ctypes.create_string_buffer(64)
    query = struct.pack("=IIIIQI", socket.if_nametoindex(iface), _TCX_INGRESS, 0, 0, ctypes.addressof(ids), 16)
    attr = ctypes.create_string_buffer(query, 64)
    call(Command.PROG_QUERY, attr, iface)
    return bool(struct.unpack_from("=I", attr.raw, _COUNT_AT)[0])
