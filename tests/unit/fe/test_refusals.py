"""What an operator reads of clients that were refused: one line in ten seconds, with reasons and clients."""

from __future__ import annotations

from ipaddress import ip_address

from tcpha.fe.refusals import NOTE_INTERVAL_S, REASONS_SHOWN, Refusals
from tcpha.proto.ip import ConnectionKey, connection_key

NOW = 1000.0
VIP = ip_address("198.18.0.36")


def key(port: int) -> ConnectionKey:
    return connection_key(ip_address("198.18.0.10"), port, VIP, 80)


def texts(refusals: Refusals, now: float) -> list[str]:
    return [note.text for note in refusals.on_timer(now)]


def test_nothing_was_refused_nothing_is_told() -> None:
    assert Refusals().on_timer(NOW) == []


def test_one_refused_client_is_told_with_its_address_and_why() -> None:
    refusals = Refusals()
    refusals.add("503 (no rule)", key(4000))
    (note,) = refusals.on_timer(NOW)
    assert note.text == "refusals and limits: once 503 (no rule), last 198.18.0.10:4000 > 198.18.0.36:80"
    assert not note.needs_care
    assert refusals.on_timer(NOW + 60) == []


def test_many_refused_within_the_interval_are_told_in_one_line_at_its_end() -> None:
    refusals = Refusals()
    refusals.add("503 (no rule)", key(4000))
    assert len(refusals.on_timer(NOW)) == 1
    for port in range(4001, 4018):
        refusals.add("503 (no rule)", key(port))
    refusals.add("400 (HTTP/1.1 without Host)", key(5000))
    assert refusals.on_timer(NOW + NOTE_INTERVAL_S - 0.01) == []
    assert texts(refusals, NOW + NOTE_INTERVAL_S) == [
        "refusals and limits: 17 times 503 (no rule), last 198.18.0.10:4017 > 198.18.0.36:80;"
        " once 400 (HTTP/1.1 without Host), last 198.18.0.10:5000 > 198.18.0.36:80"
    ]


def test_more_reasons_than_are_shown_the_rare_ones_are_added_up() -> None:
    refusals = Refusals()
    for number in range(REASONS_SHOWN + 2):
        for _ in range(10 - number):
            refusals.add(f"reason {number}", key(4000))
    (text,) = texts(refusals, NOW)
    assert text.count("last ") == REASONS_SHOWN
    assert "reason 6" not in text
    assert text.endswith("; 7 times for other reasons")
