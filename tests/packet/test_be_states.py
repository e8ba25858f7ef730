"""docs/states-be.md says what the code does."""

from __future__ import annotations

import re

import pytest

from tcpha.be.flows import FlowState
from tests.packet.be_states import DOCUMENT, STATES, STIMULI, outcome, table


def rows() -> dict[str, list[str]]:
    """The table as it stands in the document."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][1:] == list(STATES)
    return {row[0]: row[1:] for row in cells[2:]}


def test_document_has_every_state_and_stimulus() -> None:
    assert set(STATES) == {"no flow", *FlowState.__members__}
    assert list(rows()) == list(STIMULI)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("stimulus", STIMULI)
def test_document_says_what_the_code_does(state: str, stimulus: str) -> None:
    documented = rows()[stimulus][STATES.index(state)]
    assert outcome(state, stimulus) == documented, "python -m tests.packet.be_states writes the table again"


def test_table_never_delivers_without_a_translation() -> None:
    for line in table().splitlines()[2:]:
        no_flow, syn_sent = [cell.strip() for cell in line.strip("|").split("|")][1:3]
        assert not re.search(r"to (server|client)", no_flow + syn_sent)
