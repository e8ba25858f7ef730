from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from tcpha.lab import namespaces, residents


def test_residents_of_the_own_namespace_are_others_not_oneself() -> None:
    own = namespaces.own_identity()
    assert own is not None
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            found = residents.find({own})
        finally:
            other.kill()
    assert other.pid in found
    assert os.getpid() not in found


def test_residents_of_no_namespace_are_none() -> None:
    assert residents.find({(0, 0)}) == ()
    residents.end({(0, 0)})


@pytest.mark.parametrize("hidden", [False, True])
def test_end_of_the_machines_own_namespace_signals_nobody(monkeypatch: pytest.MonkeyPatch, hidden: bool) -> None:
    machine, other = (4, 1), (4, 2)
    identities = {1: None if hidden else machine, os.getpid(): machine if hidden else other, 77: machine}
    monkeypatch.setattr(namespaces, "identity_of_process", identities.get)
    monkeypatch.setattr(residents, "find", lambda wanted: tuple(pid for pid in identities if identities[pid] in wanted))
    signalled: list[int] = []

    def record(pid: int, *_: object) -> None:
        signalled.append(pid)
        identities.pop(pid)

    monkeypatch.setattr(residents, "_signal", record)
    residents.end({machine})
    assert signalled == []


def test_end_process_that_became_another_one_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the search and the signal its id may be given away: the one found there lives elsewhere."""
    lists = iter([(os.getpid(),), ()])
    monkeypatch.setattr(residents, "find", lambda _identities: next(lists))
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        residents.end({(0, 0)})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not received.is_set()
    assert next(lists, None) is None
