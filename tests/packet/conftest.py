"""Settings of the packet-level tests. The machine is shared: how long one example takes says nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("packet", deadline=None)
settings.load_profile("packet")


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """The IP version of the client and the virtual address."""
    version: int = request.param
    return version
