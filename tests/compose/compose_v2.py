"""Compose of both versions: v1 (docker-compose 1.29, Debian 12) and v2, a plug-in of the client.

Debian 12 has no v2. Debian 13's is one file that runs there too: it is taken out of its package, which apt fetches with
lists of its own, and kept below ~/.cache/tcpha. The machine's packages and lists stay as they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.compose.base_image import cache_directory
from tests.compose.engine import Engine, EngineError, find, run

V1 = ("docker-compose",)
V2 = ("docker", "compose")
_PLUGIN = "usr/libexec/docker/cli-plugins/docker-compose"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FETCH_LIMIT_S = 120.0


def find_v1(engine: Engine) -> tuple[str, ...] | None:
    """The words that run Compose v1, if it is installed."""
    try:
        found = find(V1[0]) is not None and engine.run([*V1, "version", "--short"], limit_s=30).startswith("1.")
    except EngineError:
        return None
    return V1 if found else None


def find_v2(engine: Engine, say: Callable[[str], None]) -> tuple[str, ...] | None:
    """The words that run Compose v2: as installed, or Debian 13's."""
    if _runs(engine):
        return V2
    kept = cache_directory() / "docker-compose-v2"
    if not kept.exists():
        say("Compose v2: taken out of Debian 13's package")
        try:
            _fetch(engine, kept)
        except EngineError as error:
            say(f"Compose v2 cannot be had: {error}")
            return None
    plugins = Path(engine.environment["DOCKER_CONFIG"], "cli-plugins")
    plugins.mkdir(parents=True, exist_ok=True)
    shutil.copy(kept, plugins / "docker-compose")
    return V2 if _runs(engine) else None


def _runs(engine: Engine) -> bool:
    try:
        engine.run([*V2, "version"], limit_s=30)
    except EngineError:
        return False
    return True


def _fetch(engine: Engine, target: Path) -> None:
    if not _KEYRING.exists() or find("apt-get") is None:
        raise EngineError("no Debian here")
    directory = engine.directory / "apt"
    (directory / "lists/partial").mkdir(parents=True, exist_ok=True)
    (directory / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    (directory / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} trixie main\n")
    apt = [
        "apt-get",
        "-qq",
        *("-o", f"Dir::Etc::sourcelist={directory}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null"),
        *("-o", f"Dir::State::lists={directory}/lists", "-o", f"Dir::Cache={directory}/cache"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    environment = dict(os.environ)
    run([*apt, "update"], environment, limit_s=_FETCH_LIMIT_S)
    run([*apt, "download", "docker-compose/trixie"], environment, limit_s=_FETCH_LIMIT_S, cwd=directory)
    package = next(directory.glob("docker-compose_*.deb"))
    run(["dpkg", "-x", str(package), str(directory / "content")], environment, limit_s=60)
    draft = target.with_suffix(f".{os.getpid()}")
    shutil.copy(directory / "content" / _PLUGIN, draft)
    draft.rename(target)


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"]
    uris = run(words, dict(os.environ), limit_s=30).split()
    return next((uri for uri in uris if uri.rstrip("/").endswith("/debian")), "http://deb.debian.org/debian")
