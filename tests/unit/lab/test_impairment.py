from __future__ import annotations

from typing import Any

import pytest

from tcpha.errors import StartError
from tcpha.lab.impairer_job import Job
from tcpha.lab.impairment import Impairment, Way, parse_delay, parse_share, parse_way


@pytest.mark.parametrize(
    ("text", "share"),
    [("2%", 0.02), ("2", 0.02), (" 2 % ", 0.02), ("0.5%", 0.005), ("0", 0.0), ("100%", 1.0), ("007", 0.07)],
)
def test_share_as_a_person_writes_it_is_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "two", "-1", "100.1", "101%", "1e2", "2%%", "2 3", "nan", "٢"])
def test_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="is no share: 0% to 100%"):
        parse_share(text)


@pytest.mark.parametrize(
    ("text", "delay_s"),
    [
        ("20ms", 0.02),
        ("0.02s", 0.02),
        ("20000us", 0.02),
        ("20 ms", 0.02),
        ("1.5ms", 0.0015),
        ("0s", 0.0),
        ("10s", 10.0),
    ],
)
def test_delay_as_a_person_writes_it_is_read(text: str, delay_s: float) -> None:
    assert parse_delay(text) == pytest.approx(delay_s)


@pytest.mark.parametrize("text", ["", "20", "ms", "-1ms", "10.001s", "20min", "1,5ms", "20ms5"])
def test_delay_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="is no delay: 0s to 10s"):
        parse_delay(text)


@pytest.mark.parametrize(
    ("text", "way"), [("fe", Way("fe")), ("be1:fe", Way("be1", "fe")), ("client:router", Way("client", "router"))]
)
def test_way_is_read_and_written_the_same(text: str, way: Way) -> None:
    assert parse_way(text) == way
    assert str(way) == text


@pytest.mark.parametrize("text", ["", ":", "fe:", ":fe", "fe:client:be1"])
def test_way_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="is neither NODE nor NODE:PEER"):
        parse_way(text)


def test_way_from_a_node_to_itself_is_refused() -> None:
    with pytest.raises(StartError, match="fe is no peer of itself"):
        parse_way("fe:fe")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"loss": 1.01}, "loss is not 101 %"),
        ({"duplicate": -0.01}, "duplicate is not -1 %"),
        ({"reorder": float("nan")}, "reorder is not nan %"),
        ({"reorder_depth": 0}, "at most 1 to 20 others, not 0"),
        ({"reorder_depth": 21}, "at most 1 to 20 others, not 21"),
        ({"delay_s": 10.5}, "a delay is 0 to 10 s, not 10.5 s"),
        ({"only": "icmp"}, "only tcp or udp"),
    ],
)
def test_impairment_out_of_range_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(StartError, match=reason):
        Impairment(**fields)


@pytest.mark.parametrize(
    ("impairment", "text"),
    [
        (Impairment(), "nothing"),
        (Impairment(loss=0.02), "loss 2%"),
        (Impairment(loss=1.0, duplicate=0.005), "loss 100%, duplicate 0.5%"),
        (Impairment(reorder=0.1, reorder_depth=20), "reorder 10% by up to 20"),
        (Impairment(reorder_depth=7, delay_s=0.0015), "delay 1.5ms"),
        (Impairment(loss=0.02, only="udp", seed=0), "loss 2%, udp only, seed 0"),
    ],
)
def test_impairment_is_said_in_words(impairment: Impairment, text: str) -> None:
    assert str(impairment) == text


def test_job_written_and_read_is_the_same() -> None:
    job = Job(3, {"router-fe0": "02:00:00:00:00:01"}, Impairment(loss=0.1, reorder=1 / 3, only="tcp", seed=7))
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"queue": 1, "ports": {}, "impairment": {"speed": 1}}'])
def test_job_that_is_none_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Job.from_json(text)
