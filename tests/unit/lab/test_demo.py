"""What the demo expects and how it judges; that it runs, tests/cluster/test_demo.py shows."""

from __future__ import annotations

import re

import pytest

from tcpha.lab.demo import DRAWN, REQUESTS, RULES, Request, judged

CLIENT = "198.18.0.10"
PICTURE = Request("/1k.jpg", "be2")


@pytest.mark.parametrize("request_", [*REQUESTS, DRAWN], ids=lambda request: request.path)
def test_expected_backend_is_that_of_the_first_rule_that_matches(request_: Request) -> None:
    matching = [backend for pattern, backend in RULES if re.search(pattern, request_.path)]
    assert matching[0] == request_.backend


def test_requests_reach_every_backend_over_both_families() -> None:
    assert {request.backend for request in REQUESTS} == {"be1", "be2"}
    assert {request.over_ipv6 for request in REQUESTS} == {True, False}


def test_answer_as_the_rules_say_has_no_fault() -> None:
    assert list(judged(PICTURE, "200", "be2", CLIENT, CLIENT)) == []


@pytest.mark.parametrize(
    ("status", "answered_by", "seen", "fault"),
    [
        ("503", "be2", CLIENT, "the status is 503, not 200"),
        ("200", "be1", CLIENT, "be1 answered, the rules say be2"),
        ("200", "", CLIENT, "nobody known answered, the rules say be2"),
        ("200", "be2", "198.18.0.23", f"the server saw 198.18.0.23, the client is {CLIENT}"),
        ("200", "be2", "", f"the server saw nobody, the client is {CLIENT}"),
    ],
)
def test_answer_unlike_the_rules_names_its_fault(status: str, answered_by: str, seen: str, fault: str) -> None:
    assert list(judged(PICTURE, status, answered_by, seen, CLIENT)) == [fault]
