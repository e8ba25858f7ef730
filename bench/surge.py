"""Sizes, popularity and pages of Web documents as in SURGE. Pure: the random source is an argument.

Must not know how requests are sent. P. Barford, M. Crovella: Generating Representative Web Workloads for Network and
Server Performance Evaluation, SIGMETRICS 1998.

Deviation: sizes end at `SIZE_MAX_OCTETS`, else single documents of gigabytes would decide the outcome; a page has at
most `EMBEDDED_MAX` embedded documents; times in which a user is silent are left out, for the load is a closed loop;
which document is how popular is drawn without regard to its size; there is no temporal locality (stack distances): each
request is drawn by popularity alone, without regard to what was asked before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

BODY_MU = 9.357
BODY_SIGMA = 1.318
BODY_SHARE = 0.93
TAIL_LEAST_OCTETS = 133_000
TAIL_ALPHA = 1.1
SIZE_MAX_OCTETS = 10_000_000
EMBEDDED_LEAST = 1.0
EMBEDDED_ALPHA = 2.43
EMBEDDED_MAX = 50


@dataclass(frozen=True, slots=True)
class Site:
    """Documents and the pages that are asked for, in order."""

    sizes_octets: tuple[int, ...]
    """Of document 0, the most popular one, 1, ..."""
    pages: tuple[tuple[int, ...], ...]
    """Documents of each page: itself, then what is embedded. One connection carries a page."""

    @property
    def mean_octets(self) -> float:
        """Octets per request over all pages."""
        asked = [document for page in self.pages for document in page]
        return sum(self.sizes_octets[document] for document in asked) / len(asked)


def size_octets(random: Random) -> int:
    """Draw the size of a document: lognormal body, Pareto tail, both truncated. 1 to `SIZE_MAX_OCTETS`."""
    in_body = random.random() < BODY_SHARE
    while True:
        size = random.lognormvariate(BODY_MU, BODY_SIGMA) if in_body else pareto(random, TAIL_LEAST_OCTETS, TAIL_ALPHA)
        if 1 <= size <= (TAIL_LEAST_OCTETS if in_body else SIZE_MAX_OCTETS):
            return int(size)


def pareto(random: Random, least: float, alpha: float) -> float:
    """Draw from P[X > x] = (least / x) ** alpha, by inversion."""
    return float(least / (1.0 - random.random()) ** (1.0 / alpha))


def embedded_count(random: Random) -> int:
    """Draw how many documents a page embeds. 1 to `EMBEDDED_MAX`."""
    return min(EMBEDDED_MAX, math.floor(pareto(random, EMBEDDED_LEAST, EMBEDDED_ALPHA)))


def popularity(count: int) -> tuple[float, ...]:
    """Zipf's law: the share of requests for the document of each rank is proportional to 1 / rank."""
    total = sum(1 / rank for rank in range(1, count + 1))
    return tuple(1 / rank / total for rank in range(1, count + 1))


def site(seed: int, documents: int, pages: int) -> Site:
    """Draw a site; the same seed gives the same site."""
    random = Random(seed)
    sizes = tuple(size_octets(random) for _ in range(documents))
    weights = tuple(accumulate(popularity(documents)))
    return Site(sizes, tuple(_page(random, weights) for _ in range(pages)))


def _page(random: Random, cumulative_weights: Sequence[float]) -> tuple[int, ...]:
    ranks = range(len(cumulative_weights))
    return tuple(random.choices(ranks, cum_weights=cumulative_weights, k=1 + embedded_count(random)))
