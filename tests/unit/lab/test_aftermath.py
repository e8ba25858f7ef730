from __future__ import annotations

import pytest

from tcpha.errors import StartError
from tcpha.lab.aftermath import cleaning_up_after, told


def test_clean_up_fails_the_first_fault_stays_the_fault_and_both_are_told() -> None:
    first = StartError("the first")
    with cleaning_up_after(first):
        raise OSError("the second")
    assert told(first) == "the first\nand then, while that was cleaned up: the second"


def test_clean_up_goes_well_the_fault_is_told_alone() -> None:
    first = StartError("the first")
    with cleaning_up_after(first):
        pass
    assert told(first) == "the first"


def test_clean_up_is_interrupted_the_interruption_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt), cleaning_up_after(StartError("the first")):
        raise KeyboardInterrupt
