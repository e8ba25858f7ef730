"""SURGE's distributions: their parameters show in what is drawn."""

from __future__ import annotations

from random import Random
from statistics import NormalDist, fmean

import pytest

from bench import surge

DRAWN = 20_000


@pytest.fixture(scope="module")
def sizes() -> list[int]:
    random = Random(1)
    return [surge.size_octets(random) for _ in range(DRAWN)]


def test_sizes_are_within_their_bounds(sizes: list[int]) -> None:
    assert min(sizes) >= 1
    assert max(sizes) <= surge.SIZE_MAX_OCTETS
    assert max(sizes) > surge.SIZE_MAX_OCTETS / 2


def test_body_is_lognormal_and_as_large_as_its_share(sizes: list[int]) -> None:
    body = sorted(size for size in sizes if size <= surge.TAIL_LEAST_OCTETS)
    assert len(body) / DRAWN == pytest.approx(surge.BODY_SHARE, abs=0.01)
    # The median of a lognormal distribution that ends at the tail's beginning.
    normal = NormalDist(surge.BODY_MU, surge.BODY_SIGMA)
    end = normal.cdf(11.798)  # log 133,000
    expected = 2.718281828 ** normal.inv_cdf(end / 2)
    assert body[len(body) // 2] == pytest.approx(expected, rel=0.05)


def test_tail_thins_as_pareto(sizes: list[int]) -> None:
    tail = [size for size in sizes if size > surge.TAIL_LEAST_OCTETS]
    for times in (2, 4, 8):
        share = sum(size > times * surge.TAIL_LEAST_OCTETS for size in tail) / len(tail)
        cut = (surge.TAIL_LEAST_OCTETS / surge.SIZE_MAX_OCTETS) ** surge.TAIL_ALPHA
        assert share == pytest.approx((times**-surge.TAIL_ALPHA - cut) / (1 - cut), abs=0.04)


def test_embedded_documents_are_as_many_as_a_pareto_distribution_has() -> None:
    random = Random(2)
    counts = [surge.embedded_count(random) for _ in range(DRAWN)]
    assert min(counts) == 1
    assert max(counts) <= surge.EMBEDDED_MAX
    assert sum(count >= 2 for count in counts) / DRAWN == pytest.approx(2**-surge.EMBEDDED_ALPHA, abs=0.01)


def test_popularity_follows_zipf() -> None:
    shares = surge.popularity(100)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] / shares[9] == pytest.approx(10)


def test_site_is_asked_by_popularity_and_one_page_has_two_documents_or_more() -> None:
    site = surge.site(1, documents=50, pages=DRAWN // 4)
    asked = [document for page in site.pages for document in page]
    assert asked.count(0) / len(asked) == pytest.approx(surge.popularity(50)[0], rel=0.1)
    assert min(map(len, site.pages)) == 2
    assert site.mean_octets == pytest.approx(fmean(site.sizes_octets[document] for document in asked))


def test_same_seed_same_site() -> None:
    assert surge.site(7, 20, 20) == surge.site(7, 20, 20)
    assert surge.site(7, 20, 20) != surge.site(8, 20, 20)
