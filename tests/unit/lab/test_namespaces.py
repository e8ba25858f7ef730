"""Names of namespaces beside those of `ip netns`, each test in a mount namespace in which nobody has used it yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tcpha.lab import namespaces

pytestmark = pytest.mark.skipif(namespaces.fault() is not None, reason="namespaces need root")

_SCENE = """
import subprocess
from pathlib import Path
from tcpha.lab import namespaces

def mounts(name):
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [words[4] for words in lines if words[0] not in before and words[4].endswith(name)]

def ip_netns(*words):
    subprocess.run(["ip", "netns", *words], check=True)

before = {line.split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
"""
_CREATED_UNSHARED = """
share = namespaces._share_directory
namespaces._share_directory = lambda: None
namespaces.create("ours")
namespaces._share_directory = share
assert mounts("/netns") == [], mounts("/netns")
"""


def play(script: str) -> None:
    apart = ["unshare", "--mount", "--propagation", "private"]
    played = subprocess.run(
        [*apart, sys.executable, "-c", _SCENE + script], capture_output=True, text=True, check=False, timeout=30
    )
    assert played.returncode == 0, played.stderr


def test_name_is_made_before_the_first_of_ip_netns_is_not_hidden_by_it_and_goes() -> None:
    play("""
namespaces.create("ours")
ip_netns("add", "theirs")
assert len(mounts("/netns")) == len(mounts("/ours")) == 1, mounts("")
assert namespaces.identity("ours") not in (None, namespaces.identity("theirs"))
namespaces.remove("ours")
assert namespaces.names() == ("theirs",) and mounts("/ours") == []
ip_netns("del", "theirs")
""")


def test_name_is_made_behind_those_of_ip_netns_mounts_the_directory_no_second_time() -> None:
    play("""
ip_netns("add", "theirs")
namespaces.create("ours")
assert len(mounts("/netns")) == 1, mounts("/netns")
ip_netns("del", "ours")
assert namespaces.names() == ("theirs",)
""")


def test_name_is_mounted_below_the_mount_of_ip_netns_goes_and_leaves_the_others() -> None:
    play(
        _CREATED_UNSHARED
        + """
ip_netns("add", "theirs")
assert len(mounts("/ours")) == 2, mounts("/ours")
kept = namespaces.identity("theirs")
namespaces.remove("ours")
assert namespaces.names() == ("theirs",) and namespaces.identity("theirs") == kept is not None
assert mounts("/ours") == [] and len(mounts("/theirs")) == 1, mounts("")
"""
    )


def test_name_is_only_hidden_by_the_mount_of_ip_netns_goes() -> None:
    """As an earlier attempt to remove it leaves it."""
    play(
        _CREATED_UNSHARED
        + """
ip_netns("add", "theirs")
subprocess.run(["umount", "/run/netns/ours"], check=True)
assert len(mounts("/ours")) == 1, mounts("/ours")
namespaces.remove("ours")
assert namespaces.names() == ("theirs",) and mounts("/ours") == []
namespaces.remove("ours")
"""
    )
