"""Settings that every node of a lab is born with."""

from __future__ import annotations

from tcpha.lab.wiring import _SETTINGS_OF_NODE, _SETTINGS_OF_ROUTER


def test_only_the_router_forwards_and_that_is_set_before_the_others() -> None:
    for settings, forwards in ((_SETTINGS_OF_NODE, 0), (_SETTINGS_OF_ROUTER, 1)):
        assert next(iter(settings.items())) == ("ipv4/ip_forward", forwards)
