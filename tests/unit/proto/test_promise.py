from __future__ import annotations

import pytest

from tcpha.proto.promise import Promise


@pytest.mark.parametrize(
    ("ipv6", "timestamps", "offered"),
    [(False, True, 65160), (False, False, 64240), (True, True, 64260), (True, False, 64800)],
)
def test_window_is_offered_in_whole_segments_as_linux_does(ipv6: bool, timestamps: bool, offered: int) -> None:
    promise = Promise(1460, 7, True, True)
    assert promise.offered(65535, ipv6, timestamps) == offered
    assert promise.offered(1000, ipv6, timestamps) == 1000, "less than a segment stays what it is"


@pytest.mark.parametrize(("octets", "field"), [(0, 0), (1, 1), (128, 1), (129, 2), (65160, 510), (1 << 24, 65535)])
def test_scaled_window_is_rounded_up_and_never_less_than_offered(octets: int, field: int) -> None:
    assert Promise(1460, 7, True, True).window_field(octets, True) == field
    assert Promise(1460, 0, True, True).window_field(octets, True) == min(octets, 65535)
    assert Promise(1460, None, True, True).window_field(octets, True) == min(octets, 65535)
    assert Promise(1460, 7, True, True).window_field(octets, False) == min(octets, 65535)
