"""Selections of a matrix that is too large to be tested whole: every two values of two dimensions meet in some case.

Pure, and the same each time. Greedy, after Cohen, Dalal, Fredman, Patton, "The AETG System" (IEEE Transactions on
Software Engineering 23(7), 1997): each case begins with a pair that is still missing and takes, dimension by dimension,
the value that brings most others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Case = dict[str, Any]
Dimensions = Mapping[str, Sequence[Hashable]]
Pair = tuple[tuple[str, Hashable], tuple[str, Hashable]]


def covering(dimensions: Dimensions) -> list[Case]:
    """Cases in which every two values of two different dimensions meet."""
    missing = dict.fromkeys(pairs(dimensions))
    cases: list[Case] = []
    while missing:
        case: Case = dict(next(iter(missing)))
        for name, values in dimensions.items():
            if name not in case:
                # Where several bring as many, another one each time.
                turned = [*values[len(cases) % len(values) :], *values[: len(cases) % len(values)]]
                case[name] = max(turned, key=_news(name, case, missing))
        case = {name: case[name] for name in dimensions}
        for pair in pairs_of(case):
            missing.pop(pair, None)
        cases.append(case)
    return cases


def pairs(dimensions: Dimensions) -> list[Pair]:
    """Every two values of two different dimensions."""
    return [
        ((one, value), (other, another))
        for one, other in combinations(dimensions, 2)
        for value, another in product(dimensions[one], dimensions[other])
    ]


def pairs_of(case: Case) -> list[Pair]:
    """The pairs that one case covers; its dimensions are in the order of the matrix."""
    return list(combinations(case.items(), 2))


def _news(name: str, case: Case, missing: Mapping[Pair, None]) -> Callable[[Hashable], int]:
    """How many missing pairs a value of this dimension makes with what is chosen already."""

    def count(value: Hashable) -> int:
        mine = (name, value)
        return sum((mine, other) in missing or (other, mine) in missing for other in case.items())

    return count
