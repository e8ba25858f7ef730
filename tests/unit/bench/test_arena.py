"""What has to be there before a lab is set up."""

from __future__ import annotations

import pytest

from bench import arena
from bench.contenders import CONTENDERS, Contender

BY_KEY = {each.key: each for each in CONTENDERS}


@pytest.mark.parametrize(
    ("keys", "missing", "reason"),
    [
        (["direct", "tcpha"], {"haproxy", "nginx"}, None),
        (["haproxy_reuse"], {"haproxy"}, "haproxy is not installed"),
        (["haproxy"], {"nginx"}, None),
        (["nginx"], {"nginx"}, "nginx is not installed"),
        (["direct"], {"wrk"}, "wrk is not installed"),
        (["haproxy", "nginx"], set(), None),
    ],
)
def test_what_is_missing_is_told(
    keys: list[str], missing: set[str], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def which(name: str, *, path: str | None = None) -> str | None:
        return None if name in missing else f"{path or '/usr/bin'}/{name}"

    monkeypatch.setattr("bench.arena.shutil.which", which)
    monkeypatch.setattr(arena, "find_nginx", lambda: which("nginx"))
    contenders: list[Contender] = [BY_KEY[key] for key in keys]
    assert arena.obstacle(contenders) == reason
