"""Where things are pinned: found again without a record, gone without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpha.errors import EdgeError
from tcpha.lab import namespaces
from tcpha.net import pins
from tcpha.net.pins import _MOUNTS

pytestmark = pytest.mark.skipif(namespaces.fault() is not None, reason="mounts and namespaces need root")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """There is no bpf file system of the host's."""
    monkeypatch.setattr(pins, "SHARED", tmp_path / "shared")
    return tmp_path / "state"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bpf file system of the host's."""
    place = tmp_path / "shared"
    place.mkdir()
    if subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=False).returncode:
        pytest.skip("this kernel has no bpf file system")
    monkeypatch.setattr(pins, "SHARED", place)
    yield place
    subprocess.run(["umount", str(place)], check=True)


NAMES = ["état", "a b", "tab\tnew\nline", r"back\slash", r"\040", "#", "line\u2028separator", os.fsdecode(b"\xff")]
"""Names that /proc/self/mountinfo writes in another way, or that are easily read in another."""


@pytest.mark.parametrize("name", NAMES)
def test_name_is_written_in_another_way_its_file_system_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    escaped = os.fsencode(name)
    for octet in b"\\ \t\n#":
        escaped = escaped.replace(bytes((octet,)), b"\\%03o" % octet)
    place, listing = tmp_path / name, tmp_path / "mountinfo"
    root = b"21 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    own = b"41 21 0:35 / %s/%s rw - bpf none rw\n" % (os.fsencode(tmp_path), escaped)
    listing.write_bytes(root + own)
    monkeypatch.setattr(pins, "_MOUNTS", listing)
    assert pins.bpffs_of(place / "tcpha" / "fe") == place
    assert pins._is_mounted(place)
    assert not pins._is_mounted(place / "tcpha")
    assert pins.bpffs_of(tmp_path) is None


@pytest.mark.parametrize("name", NAMES)
def test_state_has_an_unusual_name_what_is_mounted_there_is_found_again(
    nowhere: Path, name: str, request: pytest.FixtureRequest
) -> None:
    state = nowhere / name
    try:
        place = pins.directory("fe", state)
    except EdgeError as error:
        pytest.skip(str(error))
    request.addfinalizer(lambda: subprocess.run(["umount", "-q", place.parent], check=False))
    before = _MOUNTS.read_bytes()
    assert pins.directory("fe", state) == place
    assert _MOUNTS.read_bytes() == before, "nothing is mounted over it"
    pins.remove("fe", state)
    assert list(state.iterdir()) == []


def mounts_below(place: Path) -> list[str]:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [mount for mount in mounts if mount.startswith(str(place))]


def test_host_has_no_bpf_file_system_one_is_mounted_and_found_again_and_unmounted(nowhere: Path) -> None:
    try:
        place = pins.directory("fe", nowhere)
    except EdgeError as error:
        pytest.skip(str(error))
    assert pins.directory("fe", nowhere) == place
    assert place.stat().st_mode & 0o777 == 0o700
    (place / "left").symlink_to("by an earlier process")
    assert mounts_below(nowhere) == [str(place.parent)]
    assert pins.remove("fe", nowhere)
    assert mounts_below(nowhere) == []
    assert list(nowhere.iterdir()) == []
    assert not pins.remove("fe", nowhere)


PIN = """
import logging, sys
from pathlib import Path
from tcpha.net import pins
logging.basicConfig(format="%(levelname)s %(message)s")
pins.SHARED = Path(sys.argv[1], "shared")
pins.directory("fe", Path(sys.argv[1], "state"))
pins.remove("fe", Path(sys.argv[1], "state"))
"""


@pytest.mark.parametrize("is_own", [False, True])
def test_file_system_is_mounted_in_a_mount_namespace_of_its_own_a_warning_says_what_that_means(
    tmp_path: Path, is_own: bool
) -> None:
    words = [*(["unshare", "--mount"] if is_own else []), sys.executable, "-c", PIN, str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    if said.returncode:
        pytest.skip(said.stderr)
    told = (
        f"WARNING what is pinned in {tmp_path}/state/pins-fe ends with this process: its mount namespace is its own\n"
    )
    assert said.stderr == (told if is_own else "")
    assert mounts_below(tmp_path) == []


@pytest.mark.parametrize("level", ["tcpha", "role"])
@pytest.mark.parametrize("how", ["of another", "writable", "a link"])
def test_directory_is_not_only_ours_nothing_is_pinned(shared: Path, tmp_path: Path, level: str, how: str) -> None:
    """Who may write there could exchange the maps."""
    state = tmp_path / "state"
    place = pins.directory("be", state) if how != "a link" else pins.places("be", state)[0]
    bad = place if level == "role" else place.parent
    if how == "of another":
        os.chown(bad, 4711, -1)
    elif how == "writable":
        bad.chmod(0o770)
    else:
        bad.parent.mkdir(exist_ok=True, mode=0o700)
        bad.symlink_to(tmp_path)
    try:
        with pytest.raises(EdgeError, match="nobody else"):
            pins.directory("be", state)
    finally:
        for each in (bad,) if bad.is_symlink() else (place, place.parent):
            each.unlink() if each.is_symlink() else each.rmdir()


def test_host_has_one_each_role_has_its_directory_there_and_nothing_is_mounted(shared: Path, tmp_path: Path) -> None:
    places = {role: pins.directory(role, tmp_path / "state") for role in ("fe", "be")}
    assert {place.parent for place in places.values()} == {shared / "tcpha"}
    assert not (tmp_path / "state").exists()
    (places["fe"] / "left").symlink_to("by an earlier process")
    assert pins.remove("fe", tmp_path / "state")
    assert [each.name for each in (shared / "tcpha").iterdir()] == [places["be"].name]
    assert not pins.remove("be", tmp_path / "state"), "nothing was pinned there"
    assert not (shared / "tcpha").exists()


def test_place_cannot_be_made_the_error_says_where_and_why(nowhere: Path) -> None:
    nowhere.write_text("no directory")
    with pytest.raises(EdgeError, match=r"nothing can be pinned in .*/pins-fe/tcpha: Not a directory"):
        pins.directory("fe", nowhere)
