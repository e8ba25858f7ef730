"""Connections end in every way a client can end one: nothing is lost before, nothing stays behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, sockets_at

pytestmark = pytest.mark.cluster

PYTHON_SERVER = f"""sh -c 'cd "$TCPHA_DOCUMENTS" && exec {sys.executable} -m http.server --bind :: 80'"""
ROUNDS = 50


@pytest.fixture(scope="module")
def patient_lab(_machine: None) -> Iterator[Lab]:
    """A lab whose server goes on after a client's half-close, as nginx does not; one socket serves both families."""
    with engine_lab(server=PYTHON_SERVER) as standing:
        yield standing


@pytest.mark.parametrize("name", ["0", "1", "1k", "100k", "10m"])
def test_client_half_closes_after_its_request_download_is_whole(patient_lab: Lab, family: Family, name: str) -> None:
    with Conversation.open(patient_lab, family) as client:
        client.send(get(f"/{name}.jpg"))
        client.half_close()
        answer = client.answer()
        assert (answer.status, answer.sha256) == (200, digest(patient_lab, name))
        assert client.rest() == b""
    await_no_flows(patient_lab)


def test_client_half_closes_after_its_request_again_and_again_no_flow_stays(patient_lab: Lab, family: Family) -> None:
    """The FIN comes while the back end still replays, or before, or after: all three must be noticed."""
    for _ in range(ROUNDS):
        with Conversation.open(patient_lab, family) as client:
            client.send(get("/1k"))
            client.half_close()
            assert client.answer().sha256 == digest(patient_lab, "1k")
            assert client.rest() == b""
    await_no_flows(patient_lab)


def test_client_half_closes_inside_a_download_it_is_whole(patient_lab: Lab, family: Family) -> None:
    with Conversation.open(patient_lab, family, receive_buffer_octets=8192) as client:
        client.send(get("/10m"))
        assert wait_until(lambda: client.received_octets() > 0, 5.0)
        client.half_close()
        assert client.answer().sha256 == digest(patient_lab, "10m")
        assert client.rest() == b""
    await_no_flows(patient_lab)


def test_server_closes_first_then_the_client_no_flow_stays(lab: Lab, family: Family) -> None:
    for _ in range(ROUNDS):
        with Conversation.open(lab, family) as client:
            assert client.ask(get("/1k", "Connection: close")).sha256 == digest(lab, "1k")
            assert client.rest() == b""
    await_no_flows(lab)


def test_client_closes_after_the_answer_no_flow_stays(lab: Lab, family: Family) -> None:
    for _ in range(ROUNDS):
        with Conversation.open(lab, family) as client:
            assert client.ask(get("/1k.jpg")).sha256 == digest(lab, "1k")
    await_no_flows(lab)
    assert sockets_at(lab.backends[1]) == []


def test_client_resets_after_the_answer_no_flow_stays(lab: Lab, family: Family) -> None:
    for _ in range(ROUNDS):
        with Conversation.open(lab, family) as client:
            assert client.ask(get("/1k.jpg")).sha256 == digest(lab, "1k")
            client.abort()
    await_no_flows(lab)
    assert sockets_at(lab.backends[1]) == []


def test_client_resets_inside_a_download_no_flow_stays(lab: Lab, family: Family) -> None:
    for _ in range(ROUNDS):
        with Conversation.open(lab, family) as client:
            client.send(get("/10m"))
            assert client.socket.recv(1000)
            client.abort()
    await_no_flows(lab)
    assert sockets_at(lab.backends[0]) == []


def test_client_resets_right_behind_its_request_no_flow_stays(lab: Lab, family: Family) -> None:
    """The RST comes while the back end replays, or before."""
    for _ in range(ROUNDS):
        with Conversation.open(lab, family) as client:
            client.send(get("/1k"))
            client.abort()
    await_no_flows(lab)
    assert sockets_at(lab.backends[0]) == []


def test_client_closes_right_behind_its_request_no_flow_stays(lab: Lab, family: Family) -> None:
    """It does not wait for the answer: its FIN comes while the back end replays, a RST when the answer comes."""
    for _ in range(ROUNDS):
        with Conversation.open(lab, family) as client:
            client.send(get("/100k"))
    await_no_flows(lab)
    assert sockets_at(lab.backends[0]) == []


def test_client_resets_inside_an_upload_no_flow_stays(lab: Lab, family: Family) -> None:
    request = post(bytes(5_000_000))
    for _ in range(10):
        with Conversation.open(lab, family) as client:
            client.send(request[:2_000_000])
            client.abort()
    await_no_flows(lab)


def test_client_closes_before_a_request_is_closed_and_nothing_is_remembered(lab: Lab, family: Family) -> None:
    before = counters(lab.fe)
    for _ in range(ROUNDS):
        with Conversation.open(lab, family) as client:
            client.half_close()
            assert client.rest() == b""
    after = counters(lab.fe)
    assert after["closed_early"] - before["closed_early"] >= ROUNDS
    assert after["handoffs"] == before["handoffs"]
    assert after["flows"] == before["flows"]


def test_client_resets_before_a_request_nothing_is_remembered(lab: Lab, family: Family) -> None:
    before = counters(lab.fe)
    for _ in range(ROUNDS):
        Conversation.open(lab, family).abort()
    with Conversation.open(lab, family) as client:
        assert client.ask(get("/1k")).status == 200
    after = counters(lab.fe)
    assert after["handoffs"] == before["handoffs"] + 1
    assert after["enquiries"] == before["enquiries"]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_client_ends_inside_its_head_nothing_stays(lab: Lab, family: Family, end: str) -> None:
    before = counters(lab.fe)
    for octets in range(1, 40, 4):
        with Conversation.open(lab, family, nagle=False) as client:
            client.send(get("/1k.jpg", "X: yyyyyyyyyyyyyyyyyyyyy")[:octets])
            if octets % 8 == 1:
                client.await_acknowledged()
            if end == "reset":
                client.abort()
            else:
                client.half_close()
                assert client.rest() == b""
    assert counters(lab.fe)["handoffs"] == before["handoffs"]
    await_no_flows(lab)
