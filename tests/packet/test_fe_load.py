"""What the front end takes for the load of a back end between two of its STATUS messages."""

from __future__ import annotations

import logging

import pytest

from tcpha.fe.actions import Note
from tcpha.fe.service import FrontEnd
from tcpha.proto.messages import Closed, Reason, Refused
from tcpha.rules import parse_rule
from tests.packet.fe_playbook import BE1, BE2, After, Playbook, Says, anything, lives, nothing

LEAST = (parse_rule(f"{BE1.addr},{BE2.addr} balance=least .*"),)


def loads(book: Playbook) -> tuple[int, int]:
    return book.dispatcher.backends.load(BE1.addr), book.dispatcher.backends.load(BE2.addr)


def test_forwarded_closed_load_goes_down_before_the_next_status() -> None:
    book = Playbook(rules=LEAST)
    clients = [book.connected(port=41000 + number) for number in range(3)]
    for client in clients:
        book.adopted(client)
    held = [client for client in clients if book.flow(client).backend == BE1]
    before = loads(book)
    assert sum(before) == 3
    book >> Says(BE1, Closed(tuple(client.identity for client in held))) << nothing
    assert loads(book) == (0, before[1])
    book >> Says(BE1, Closed(tuple(client.identity for client in held))) << nothing
    assert loads(book) == (0, before[1]), "told twice"
    late = book.connected(port=41009)
    assert book.handing(late).backend == BE1


def test_handing_refused_load_is_the_other_back_ends() -> None:
    book = Playbook(rules=LEAST)
    client = book.connected()
    assert book.handing(client).backend == BE1
    assert loads(book) == (1, 0)
    book >> Says(BE1, Refused(client.identity, Reason.BACKLOG_FULL)) << anything
    assert loads(book) == (0, 1)


def test_handing_silence_load_is_the_other_back_ends() -> None:
    book = Playbook(rules=LEAST)
    client = book.connected()
    book.handing(client)
    book >> After(0.81) << anything
    assert book.flow(client).backend == BE2
    assert loads(book) == (0, 1)


# --- how an operator is told


@pytest.mark.parametrize(("digest", "level"), [(bytes(16), logging.WARNING), (None, logging.INFO)])
def test_back_end_has_other_lists_is_logged_as_a_warning(
    digest: bytes | None, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    book = Playbook(up=())
    book >> lives(BE1, digest=digest) << anything
    with caplog.at_level(logging.INFO):
        for action in book.actions:
            if isinstance(action, Note):
                FrontEnd._note(action, b"")
    assert max(record.levelno for record in caplog.records) == level
