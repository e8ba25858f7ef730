"""What is pinned for a network namespace: there as long as that lives, whatever else is gone, and removed after it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpha.lab import namespaces
from tcpha.lab.waiting import wait_until
from tcpha.net import pins
from tcpha.net.bpf_adopter import Adopter
from tcpha.net.bpf_attach import Link
from tcpha.net.bpf_forwarder import Forwarder
from tcpha.net.bpf_namespace import PIN, remove_left
from tests.kernel.conftest import unique_name
from tests.kernel.frames import KEYRING, MARK, RETRY_MARK
from tests.kernel.test_fe_forwarder import PROMISE

pytestmark = pytest.mark.kernel

PATIENCE_S = 10.0
LINK = {"fe": "link", "be": "be_segments"}


@pytest.fixture
def namespace(adopting: None, fe_bpf: None) -> Iterator[str]:
    """One with an interface."""
    name = unique_name()
    namespaces.create(name)
    with namespaces.inside(name):
        subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "name", "two"], check=True)
    yield name
    namespaces.remove(name)


@pytest.fixture
def shared(bpffs: Path) -> Path:
    """In the place of /sys/fs/bpf/tcpha."""
    made = bpffs / "tcpha"
    made.mkdir(mode=0o700)
    return made


def pinned(role: str, namespace: str, shared: Path) -> Path:
    """A process has pinned there, and was killed."""
    place = shared / f"{role}-{namespace}"
    place.mkdir(mode=0o700)
    with namespaces.inside(namespace):
        if role == "fe":
            forwarder = Forwarder("one", KEYRING, PROMISE, 65535, pins=place)
            forwarder.attach()
            forwarder.close()
        else:
            adopter = Adopter((bytes(4), 666), KEYRING, mark=MARK, retry_mark=RETRY_MARK, pins=place)
            adopter.attach("one")
            adopter.close()
    return place


def has_interface(link: Path) -> bool:
    found = Link.pinned(link)
    assert found is not None
    with found:
        return found.iface_index() != 0


@pytest.mark.parametrize("role", ["fe", "be"])
def test_interface_is_gone_what_is_pinned_stays_until_its_namespace_is_gone(
    namespace: str, shared: Path, role: str
) -> None:
    place, own = pinned(role, namespace, shared), shared / "fe-own"
    kept = {each.name for each in place.iterdir()}
    assert remove_left(own) == 0
    with namespaces.inside(namespace):
        subprocess.run(["ip", "link", "del", "one"], check=True)
    assert wait_until(lambda: not has_interface(place / LINK[role]), PATIENCE_S)
    assert remove_left(own) == 0
    assert {each.name for each in place.iterdir()} == kept
    namespaces.remove(namespace)
    assert wait_until(lambda: not has_interface(place / PIN), PATIENCE_S)
    assert remove_left(place) == 0, "one's own is nobody else's"
    assert remove_left(own) == 1
    assert list(shared.iterdir()) == []


def test_namespace_is_gone_but_somebody_has_it_open_what_is_pinned_stays(namespace: str, shared: Path) -> None:
    """As a process has it whose namespace's name was removed."""
    place = pinned("fe", namespace, shared)
    with subprocess.Popen(["ip", "netns", "exec", namespace, "cat"], stdin=subprocess.PIPE) as process:
        assert wait_until(lambda: _is_inside(process.pid, namespace), PATIENCE_S)
        namespaces.remove(namespace)
        assert remove_left(shared / "fe-own") == 0
        assert has_interface(place / PIN)
    assert wait_until(lambda: remove_left(shared / "fe-own") == 1, PATIENCE_S)


def test_nothing_says_whose_it_was_it_stays(namespace: str, shared: Path) -> None:
    """An earlier version pinned it, or it is no bpf file system."""
    place = pinned("be", namespace, shared)
    (place / PIN).unlink()
    namespaces.remove(namespace)
    assert wait_until(lambda: not has_interface(place / LINK["be"]), PATIENCE_S)
    assert remove_left(shared / "fe-own") == 0
    assert place.exists()
    assert remove_left(Path("/proc/nowhere/fe-own")) == 0


def test_others_may_write_there_nothing_is_removed(namespace: str, shared: Path) -> None:
    place = pinned("fe", namespace, shared)
    namespaces.remove(namespace)
    assert wait_until(lambda: not has_interface(place / PIN), PATIENCE_S)
    shared.chmod(0o777)
    assert remove_left(shared / "fe-own") == 0
    shared.chmod(0o700)
    assert remove_left(shared / "fe-own") == 1


def test_removal_was_broken_off_it_is_ended_later(
    namespace: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pinned("be", namespace, shared)
    namespaces.remove(namespace)
    assert wait_until(lambda: not has_interface(place / PIN), PATIENCE_S)

    def kill(_: Path) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as killing:
        killing.setattr(pins, "clear", kill)
        with pytest.raises(KeyboardInterrupt):
            remove_left(shared / "fe-own")
    assert [each.name for each in place.iterdir()] == [PIN]
    assert remove_left(shared / "fe-own") == 1


def _is_inside(pid: int, namespace: str) -> bool:
    inside, own = Path(f"/proc/{pid}/ns/net").stat(), Path(f"/run/netns/{namespace}").stat()
    return inside.st_ino == own.st_ino
