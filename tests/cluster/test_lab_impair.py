"""The lab's impairments: what was asked for happens, to nobody else, and is gone afterwards. Without the engine."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from tcpha.errors import StartError
from tcpha.lab import netem
from tcpha.lab.__main__ import main
from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.daemon import DaemonError
from tcpha.lab.impairment import Impairment
from tcpha.lab.impairments import Impairments
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tcpha.net.link import LinkSender
from tests.cluster import host_state
from tests.cluster.conftest import MakeLab
from tests.cluster.conversation import FAMILIES, Family
from tests.cluster.impairment_sight import final_counters, kill, pid_of, require_impairments
from tests.cluster.lab_sight import command, get_octets, living_in, processes_naming, traces
from tests.cluster.numbered_datagrams import address, exchange

pytestmark = pytest.mark.cluster

COUNT = 2_000
SEED = 11
EVERYTHING_LOST = Impairment(loss=1.0)


@pytest.fixture(scope="module")
def same_afterwards(plain_lab: Lab) -> Iterator[Lab]:
    """The lab without the engine, whose nodes and switch are after all the tests as before."""
    require_impairments(plain_lab)
    before = host_state.of_nodes(plain_lab)
    yield plain_lab
    assert host_state.of_nodes(plain_lab) == before


@pytest.fixture
def flat_lab(same_afterwards: Lab) -> Iterator[Lab]:
    """The same; whatever a test puts on is taken away."""
    yield same_afterwards
    same_afterwards.clear_impairments()


def reaches(sender: Node, receiver: Node, family: Family = "ipv4") -> bool:
    return len(exchange(sender, receiver, family, 3).numbers) == 3


def status_of(lab: Lab) -> str:
    """What `status` says of one lab."""
    return command("status", "--name", lab.name).stdout


# What happens to packets


def test_loss_is_asked_for_so_many_are_lost(flat_lab: Lab) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    with flat_lab.impair("be1", Impairment(loss=0.2, seed=SEED), peer="client", means="queue") as way:
        received = [exchange(client, be1, family, COUNT) for family in FAMILIES]
    for each in received:
        assert len(each.numbers) == pytest.approx(0.8 * COUNT, rel=0.03)
        assert each.overtaken() == {}
        assert each.most_copies == 1
    assert final_counters(way)["lost"] == 2 * COUNT - sum(len(each.numbers) for each in received)


def test_duplicates_are_asked_for_so_many_arrive_twice(flat_lab: Lab) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    with flat_lab.impair("be1", Impairment(duplicate=0.2, seed=SEED), peer="client", means="queue") as way:
        received = [exchange(client, be1, family, COUNT) for family in FAMILIES]
    for each in received:
        assert set(each.numbers) == set(range(COUNT))
        assert each.copies == pytest.approx(0.2 * COUNT, rel=0.15)
        assert each.most_copies == 2
    assert final_counters(way)["duplicated"] == sum(each.copies for each in received)


@pytest.mark.parametrize("depth", [1, 20])
def test_reordering_is_asked_for_so_many_are_overtaken_by_no_more(flat_lab: Lab, depth: int) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    impairment = Impairment(reorder=0.05, reorder_depth=depth, seed=SEED)
    with flat_lab.impair("be1", impairment, peer="client", means="queue") as way:
        received = [exchange(client, be1, family, COUNT) for family in FAMILIES]
    for each in received:
        assert sorted(each.numbers) == list(range(COUNT))
        assert len(each.overtaken()) == pytest.approx(0.05 * COUNT, rel=0.25)
        assert depth / 2 < max(each.overtaken().values()) <= depth
    assert final_counters(way)["reordered"] == sum(len(each.overtaken()) for each in received)


def test_reordering_of_a_packet_nobody_follows_it_arrives_soon(flat_lab: Lab) -> None:
    with flat_lab.impair("be1", Impairment(reorder=1.0), means="queue"):
        for family in FAMILIES:
            received = exchange(flat_lab.client, flat_lab.backends[0], family, 1)
            assert received.numbers == (0,)
            assert 0.01 <= received.late_s[0] < 0.1


def test_delay_is_asked_for_all_arrive_so_much_later_in_order(flat_lab: Lab) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    with flat_lab.impair("be1", Impairment(delay_s=0.05), peer="client", means="queue"):
        for family in FAMILIES:
            received = exchange(client, be1, family, 200)
            assert received.numbers == tuple(range(200))
            assert 0.05 <= min(received.late_s) < 0.07
    assert min(exchange(client, be1, "ipv4", 200).late_s) < 0.05


def test_everything_at_once_all_but_the_lost_arrive(flat_lab: Lab, family: Family) -> None:
    impairment = Impairment(loss=0.1, duplicate=0.1, reorder=0.1, reorder_depth=20, delay_s=0.01)
    with flat_lab.impair("be1", impairment, means="queue") as way:
        received = exchange(flat_lab.client, flat_lab.backends[0], family, COUNT)
    shown = final_counters(way)
    assert len(set(received.numbers)) == COUNT - shown["lost"]
    assert received.copies == shown["duplicated"] > 0
    assert len(received.overtaken()) > 0


def test_large_transfer_of_many_segments_none_is_lost_unasked(flat_lab: Lab) -> None:
    """The program keeps up: the kernel never drops because its queue is full."""
    with flat_lab.impair("client", Impairment(duplicate=0.001), peer="be1", means="queue") as way:
        octets = get_octets(flat_lab, "/100m")
    assert len(octets) == 100_000_000
    shown = final_counters(way)
    assert shown["packets"] > 60_000, "big packets were not cut"
    assert shown["lost"] == 0


# Whom it happens to


def test_one_peer_is_impaired_others_and_the_other_direction_are_not(flat_lab: Lab) -> None:
    client, (be1, be2) = flat_lab.client, flat_lab.backends
    with flat_lab.impair("be1", EVERYTHING_LOST, peer="client"):
        for family in FAMILIES:
            assert not exchange(client, be1, family, 10).numbers
            assert reaches(be1, client, family)
            assert reaches(be2, be1, family)
            assert reaches(client, be2, family)


def test_peer_forwards_with_the_address_of_another_it_is_the_peer_all_the_same(flat_lab: Lab) -> None:
    """As the front end does it: a frame of its own, past its rules, around a packet of the client's."""
    fe, be1 = flat_lab.fe, flat_lab.backends[0]
    links = json.loads(be1.run(["ip", "-j", "link", "show", "dev", IFACE], check=True).stdout)
    mac = bytes.fromhex(links[0]["address"].replace(":", ""))
    packet = bytes(IP(src=str(flat_lab.client.ipv4), dst=str(be1.ipv4)) / UDP(dport=9) / b"forwarded")
    with fe.enter():
        sender = LinkSender(IFACE)
    try:
        with (
            flat_lab.impair("be1", EVERYTHING_LOST, peer="fe", means="queue") as from_fe,
            flat_lab.impair("be1", EVERYTHING_LOST, peer="client", means="queue") as from_client,
        ):
            for _ in range(10):
                sender.send(mac, packet)
    finally:
        sender.close()
    assert (final_counters(from_fe)["lost"], final_counters(from_client)["lost"]) == (10, 0)


def test_peer_and_all_are_impaired_a_packet_meets_its_peers_only(flat_lab: Lab) -> None:
    client, (be1, be2) = flat_lab.client, flat_lab.backends
    flat_lab.impair("be1", Impairment(duplicate=1.0), peer="client", means="queue")
    flat_lab.impair("be1", EVERYTHING_LOST, means="queue")
    for family in FAMILIES:
        assert exchange(client, be1, family, 5).numbers == (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
        assert not exchange(be2, be1, family, 5).numbers
    flat_lab.clear_impairments()
    assert reaches(be2, be1)


@pytest.mark.parametrize(("only", "datagrams", "connects"), [("tcp", True, False), ("udp", False, True)])
def test_only_one_protocol_is_impaired_the_other_is_not(
    flat_lab: Lab, only: Any, datagrams: bool, connects: bool
) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    with flat_lab.impair("be1", Impairment(loss=1.0, only=only)):
        for family in FAMILIES:
            assert reaches(client, be1, family) is datagrams
            with client.enter():
                peer = socket.socket(socket.AF_INET if family == "ipv4" else socket.AF_INET6, socket.SOCK_STREAM)
            with peer:
                peer.settimeout(1.0 if connects else 0.2)
                assert (peer.connect_ex((address(be1, family), 80)) == 0) is connects


def test_everything_is_lost_neighbours_are_found_all_the_same(flat_lab: Lab) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    with flat_lab.impair("be1", EVERYTHING_LOST), flat_lab.impair("client", EVERYTHING_LOST):
        for node in (client, be1):
            node.run(["ip", "neigh", "flush", "dev", IFACE], check=True)
        for family in FAMILIES:
            assert not exchange(client, be1, family, 1).numbers
            wanted = address(be1, family)
            found = json.loads(client.run(["ip", "-j", "neigh", "show", "to", wanted], check=True).stdout)
            assert [entry["dst"] for entry in found if "lladdr" in entry] == [wanted]


def test_routed_lab_the_router_is_the_peer_and_is_impaired_on_every_segment(make_lab: MakeLab) -> None:
    lab = make_lab(backends=1, server=None, engine=False, routed=True)
    client, be1 = lab.client, lab.backends[0]
    with pytest.raises(StartError, match="be1 and client share no segment"):
        lab.impair("be1", EVERYTHING_LOST, peer="client")
    with lab.impair("router", Impairment(duplicate=1.0), means="queue"):
        for sender, receiver in ((client, be1), (be1, client)):
            assert exchange(sender, receiver, "ipv6", 3).numbers == (0, 0, 1, 1, 2, 2)
    with lab.impair("be1", EVERYTHING_LOST, peer="router"):
        assert not any(exchange(client, be1, family, 3).numbers for family in FAMILIES)
        assert reaches(be1, client)


def test_impairment_is_on_nodes_themselves_are_unchanged(flat_lab: Lab) -> None:
    before = host_state.of_nodes(flat_lab)
    with flat_lab.impair("fe", Impairment(loss=0.5), means="queue"):
        during = host_state.of_nodes(flat_lab)
    assert [name for name in before if during[name] != before[name]] == ["switch"]


# Coming and going


def test_impair_by_the_command_shows_replaces_and_takes_away(flat_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]

    def says(*words: str) -> str:
        assert main(["impair", "--name", flat_lab.name, *words]) == 0
        return capsys.readouterr().out

    first = command(
        "impair", "--name", flat_lab.name, "be1:client", "--loss", "100%", "--delay", "1ms", "--by", "queue"
    )
    assert (first.returncode, first.stdout) == (0, "be1:client: loss 100%, delay 1ms (queue)\n")
    assert not exchange(client, be1, "ipv4", 3).numbers
    second = says("be1:client", "--duplicate", "100", "--reorder", "1%", "--reorder-depth", "5")
    assert second == "be1:client: duplicate 100%, reorder 1% by up to 5 (queue)\n"
    assert exchange(client, be1, "ipv4", 100).copies == 100
    assert f"  impaired {second}" in status_of(flat_lab)
    record = flat_lab.node("switch").directory / "impair-be1-client.pid"
    assert record.exists()
    off = command("impair", "--name", flat_lab.name, "be1:client", "off")
    assert (off.returncode, off.stdout) == (0, "be1:client: off\n")
    assert not record.exists()
    assert exchange(client, be1, "ipv4", 3).numbers == (0, 1, 2)
    assert says("be1:client", "off") == "be1:client was not impaired\n"
    assert "impaired" not in status_of(flat_lab)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["be9", "--loss", "1%"], "no node 'be9' can be impaired, but client fe be1 be2"),
        (["switch", "--loss", "1%"], "no node 'switch' can be impaired"),
        (["fe", "--only", "tcp"], "nothing to do"),
        (["fe:", "--loss", "1%"], "'fe:' is neither NODE nor NODE:PEER"),
        (["fe", "--reorder", "1%", "--reorder-depth", "21"], "at most 1 to 20 others, not 21"),
    ],
)
def test_impair_of_what_cannot_be_ends_with_2_and_changes_nothing(
    flat_lab: Lab, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Impairments(flat_lab.nodes).standing()
    assert main(["impair", "--name", flat_lab.name, *words]) == 2
    assert reason in capsys.readouterr().err
    assert Impairments(flat_lab.nodes).standing() == before == ()


def test_impair_many_ways_at_once_all_stand_and_go(flat_lab: Lab) -> None:
    ways = [("fe", None), ("fe", "client"), ("be1", "fe"), ("client", None)]
    with ThreadPoolExecutor(len(ways)) as pool:
        put = list(pool.map(lambda way: flat_lab.impair(way[0], EVERYTHING_LOST, peer=way[1], means="queue"), ways))
        assert all(each.is_in_effect for each in put)
        assert len({each.standing.queue for each in put}) == len(ways)
        list(pool.map(lambda each: each.end(), put))
    assert Impairments(flat_lab.nodes).standing() == ()
    assert reaches(flat_lab.client, flat_lab.fe)


def test_impair_is_taken_away_what_is_held_arrives(flat_lab: Lab) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    with be1.enter():
        inlet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client.enter():
        outlet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inlet, outlet:
        inlet.bind((str(be1.ipv4), 9))
        inlet.settimeout(2.0)
        with flat_lab.impair("be1", Impairment(delay_s=10.0, duplicate=1.0), means="queue"):
            outlet.sendto(b"held", (str(be1.ipv4), 9))
        assert [inlet.recv(16), inlet.recv(16)] == [b"held", b"held"]


def test_program_is_killed_packets_pass_status_says_so_and_another_takes_its_place(flat_lab: Lab) -> None:
    client, be1 = flat_lab.client, flat_lab.backends[0]
    way = flat_lab.impair("be1", EVERYTHING_LOST, means="queue")
    assert not exchange(client, be1, "ipv4", 3).numbers
    kill(way)
    assert all(reaches(client, be1, family) for family in FAMILIES)
    assert "  impaired be1: loss 100% (its program has ended: packets pass)\n" in status_of(flat_lab)
    assert flat_lab.impair("be1", EVERYTHING_LOST, means="queue").is_in_effect
    assert not any(exchange(client, be1, family, 3).numbers for family in FAMILIES)


def test_program_is_killed_the_test_that_relied_on_it_is_told(flat_lab: Lab) -> None:
    with (
        pytest.raises(DaemonError, match="the impairment of be1 ended before"),
        flat_lab.impair("be1", EVERYTHING_LOST, means="queue") as way,
    ):
        kill(way)


def test_lab_goes_down_with_impairments_running_and_killed_nothing_is_left(make_lab: MakeLab) -> None:
    lab = make_lab(backends=1, server=None, engine=False)
    running, killed = lab.impair("be1", Impairment(loss=0.5), means="queue"), lab.impair("fe", EVERYTHING_LOST)
    kill(killed)
    assert living_in(lab) == (pid_of(running),)
    assert command("down", "--name", lab.name).returncode == 0
    assert traces(lab.name) == []
    assert processes_naming(f"/{lab.name}/") == []
    assert wait_until(lambda: not running.is_in_effect, 5.0)


# The kernel's own means


def test_netem_is_in_the_kernel_it_impairs_one_peer_and_is_gone_afterwards(flat_lab: Lab) -> None:
    if reason := netem.obstacle(flat_lab.node("switch")):
        with pytest.raises(StartError, match="netem cannot be used"):
            flat_lab.impair("be1", Impairment(loss=0.2), means="netem")
        pytest.skip(f"this kernel has no netem: {reason}")
    client, (be1, be2) = flat_lab.client, flat_lab.backends
    with flat_lab.impair("be1", Impairment(loss=0.2, delay_s=0.02), peer="client") as way:
        assert way.standing.means == "netem"
        for family in FAMILIES:
            received = exchange(client, be1, family, COUNT)
            assert len(received.numbers) == pytest.approx(0.8 * COUNT, rel=0.1)
            assert min(received.late_s) >= 0.02
            assert exchange(be2, be1, family, 100).numbers == tuple(range(100))
        with flat_lab.impair("be1", EVERYTHING_LOST, peer="be2", means="queue"):
            assert not exchange(be2, be1, "ipv4", 100).numbers
    assert exchange(client, be1, "ipv4", 100).numbers == tuple(range(100))
