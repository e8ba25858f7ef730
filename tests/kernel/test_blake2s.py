"""The chain that the programs go on from, against hashlib."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.kernel.blake2s import CHAIN_OCTETS, chain_after_key, digest_from


@given(st.binary(min_size=1, max_size=32), st.binary(min_size=1, max_size=300), st.integers(1, 32))
def test_any_key_and_message_the_digest_is_that_of_hashlib(key: bytes, message: bytes, octets: int) -> None:
    chain = chain_after_key(key, octets)
    assert len(chain) == CHAIN_OCTETS
    assert digest_from(chain, message, octets) == hashlib.blake2s(message, key=key, digest_size=octets).digest()


@pytest.mark.parametrize(("key", "octets"), [(b"", 16), (bytes(33), 16), (bytes(32), 0), (bytes(32), 33)])
def test_key_or_digest_has_an_impossible_size_it_raises(key: bytes, octets: int) -> None:
    with pytest.raises(ValueError, match="1 to 32"):
        chain_after_key(key, octets)
