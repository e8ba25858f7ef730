"""Two faults at once: what went wrong first stays the fault, what went wrong while that was cleaned up is told with it.

Must not know what is cleaned up. PEP 678 for notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cleaning_up_after(first: BaseException) -> Iterator[None]:
    """Make of a fault that ends the block a note of `first`, which whoever cleans up raises again."""
    try:
        yield
    except Exception as second:
        first.add_note(f"and then, while that was cleaned up: {told(second)}")


def told(error: BaseException) -> str:
    """Return an error and its notes, for a person."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])
