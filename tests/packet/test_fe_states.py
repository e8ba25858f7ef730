"""docs/states-fe.md is what the dispatcher does."""

from __future__ import annotations

from math import inf

import pytest

from tcpha.fe.flows import FlowState
from tests.packet.fe_playbook import Playbook
from tests.packet.fe_states import BRING_TO, FILE, SENT, render


def test_document_is_what_playing_every_cell_gives() -> None:
    assert FILE.read_text() == render(), "run python -m tests.packet.fe_states"


def test_every_state_has_a_way_to_take_segments() -> None:
    dispatcher = Playbook().dispatcher
    assert set(dispatcher._on_segment_in) == set(FlowState) == set(BRING_TO) == set(SENT) - {None}


@pytest.mark.parametrize("state", FlowState)
def test_states_that_wait_are_those_with_a_deadline(state: FlowState) -> None:
    book = Playbook()
    client = book.connected()
    BRING_TO[state](book, client)
    assert book.flow(client).state is state
    assert (state in book.dispatcher._on_deadline_in) == (book.flow(client).deadline < inf)
