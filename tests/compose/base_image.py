"""The image that the Dockerfile begins with: pulled, or made from Debian's packages where no registry can be reached.

A stand-in is kept for the next run, below ~/.cache/tcpha (or XDG_CACHE_HOME); remove it there to have it made again. It
differs from the real one in what this machine needs to reach its package mirrors: the lists of apt, certificates, and
what pip is told. None of that is in the Dockerfile.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.compose.engine import Engine, EngineError, find

NAME = "debian:bookworm-slim"
_RELEASE = "bookworm"
_PULL_LIMIT_S = 60.0
_END_OCTETS = 1024
_MAKE_LIMIT_S = 600.0
_UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_DPKG = "force-unsafe-io\n" + "".join(
    f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "man", "locale", "info", "lintian")
)
"""As in the real image: what is not installed need not be written, and nothing survives a power cut anyway."""
_PIP = "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n"


def cache_directory() -> Path:
    """Where stand-ins stay between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base, "tcpha")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def is_whole(archive: Path) -> bool:
    """Whether there is an archive, and to its end: full records, the last of which ends in zeros (tar(5))."""
    try:
        octets = archive.stat().st_size
        with archive.open("rb") as file:
            file.seek(-_END_OCTETS, os.SEEK_END)
            return octets % tarfile.RECORDSIZE == 0 and not any(file.read())
    except OSError:
        return False


def _stand_in() -> Path:
    return cache_directory() / f"{NAME.replace(':', '-')}.tar"


def provide(engine: Engine, say: Callable[[str], None]) -> None:
    """Let the engine have the image. Raises: EngineError."""
    stand_in = _stand_in()
    if not is_whole(stand_in):
        try:
            engine.docker("pull", "--quiet", NAME, limit_s=_PULL_LIMIT_S)
        except EngineError:
            say(f"{NAME} cannot be pulled: made from Debian's packages, for this run and the next ones, as {stand_in}")
            make(engine, stand_in)
        else:
            return
    else:
        say(f"{NAME}: the stand-in {stand_in}")
    engine.docker("import", "--change", 'CMD ["bash"]', "-", NAME, stdin=stand_in)


def make(engine: Engine, target: Path) -> None:
    """Make a stand-in; what runs for that ends with the engine. Raises: EngineError."""
    root = engine.directory / "rootfs"
    if find("debootstrap") is None:
        raise EngineError(f"{NAME} can neither be pulled nor made: debootstrap is not installed")
    words = [
        "env",
        "DPKG_FORCE=unsafe-io",
        "debootstrap",
        "--variant=minbase",
        "--include=ca-certificates",
        _RELEASE,
        str(root),
    ]
    engine.inside(words, limit_s=_MAKE_LIMIT_S)
    _fit_to_machine(root)
    engine.inside(["chroot", str(root), "update-ca-certificates"])
    for name in _UNWANTED:
        for path in (root / name).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    draft = target.with_suffix(f".{os.getpid()}")
    try:
        with tarfile.open(draft, "w") as archive:
            archive.add(root, arcname=".")
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
        shutil.rmtree(root)


def _fit_to_machine(root: Path) -> None:
    """Let apt and pip work inside as they do here."""
    etc = Path("/etc/apt")
    sources = [*etc.glob("sources.list.d/debian.sources"), *etc.glob("sources.list")]
    for file in [*sources, *etc.glob("apt.conf.d/9*")]:
        shutil.copy(file, root / file.relative_to("/"))
    if (etc / "sources.list.d/debian.sources").exists():
        (root / "etc/apt/sources.list").write_text("")
    for file in _CERTIFICATES.glob("*.crt"):
        shutil.copy(file, root / file.relative_to("/"))
    (root / "etc/dpkg/dpkg.cfg.d/container").write_text(_DPKG)
    (root / "etc/pip.conf").write_text(_PIP)
    # Packages that are installed during a build start nothing.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
