"""`--clean`: what a killed process left on its host is taken away; never what a living one needs."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_start_faults import Post, ended
from tests.unit.net.footprints import ROLES, VIP4, VIP6, traces_of, with_others_on_it
from tests.unit.net.namespaces import Host, pair

pytestmark = pytest.mark.cluster

_LIMIT_S = 20.0


@pytest.fixture
def host() -> Iterator[Host]:
    with pair() as (own, _):
        yield own


@pytest.fixture(params=ROLES)
def post(host: Host, request: pytest.FixtureRequest, tmp_path: Path) -> Post:
    made = Post(host, request.param, tmp_path)
    made.write()
    return made


def clean(post: Post) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    with ended(post.start("--clean")) as process:
        stdout, stderr = process.communicate(timeout=_LIMIT_S)
    return process.returncode, stdout, stderr


def serve_and_kill(post: Post) -> None:
    with post.serving() as process:
        process.send_signal(signal.SIGKILL)


def test_process_was_killed_clean_says_what_it_takes_away_and_the_host_is_as_before(post: Post) -> None:
    with_others_on_it(post.host)
    before = traces_of(post.host)
    serve_and_kill(post)
    assert traces_of(post.host) != before
    status, stdout, stderr = clean(post)
    assert (status, stderr) == (0, "")
    assert traces_of(post.host) == before
    lines = stdout.splitlines()
    assert all(line.startswith(f"{post.role}: removed ") for line in lines)
    for told in (f"{VIP4} from lo", str(VIP6), "packet filter rules"):
        assert told in stdout
    assert ("arp_announce" in stdout) == (post.role == "be")
    assert not list(post.state.glob("*.json"))


def test_nothing_was_left_clean_says_so_and_changes_nothing(post: Post) -> None:
    before = traces_of(post.host)
    assert clean(post) == (0, f"{post.role}: nothing was left on this host\n", "")
    assert traces_of(post.host) == before
    assert not post.state.exists()


def test_state_is_lost_clean_still_takes_the_rules_away(post: Post) -> None:
    serve_and_kill(post)
    shutil.rmtree(post.state)
    status, stdout, _ = clean(post)
    assert status == 0
    assert "packet filter rules" in stdout
    assert "tcpha" not in post.host.run("iptables-save") + post.host.run("ip6tables-save")


def test_process_still_runs_clean_is_refused_and_it_goes_on(post: Post) -> None:
    with post.serving() as process:
        during = traces_of(post.host)
        told = f"{post.role}: another process in this role runs in this network namespace: process {process.pid}\n"
        assert clean(post) == (2, "", told)
        post.write(state=post.directory / "other")
        assert clean(post) == (2, "", told)
        assert traces_of(post.host) == during
        assert process.poll() is None


def test_other_role_left_something_too_clean_leaves_it(host: Host, tmp_path: Path) -> None:
    posts = []
    for role in ROLES:
        (tmp_path / role).mkdir()
        posts.append(Post(host, role, tmp_path / role))
    front, back = posts
    before = traces_of(host)
    front.write(vaddrs=[VIP4], state=tmp_path / "state")
    serve_and_kill(front)
    during = traces_of(host)
    back.write("port = 5666", vaddrs=[VIP4], state=tmp_path / "state")
    assert clean(back)[:2] == (0, "be: nothing was left on this host\n")
    assert traces_of(host) == during
    assert clean(front)[0] == 0
    assert traces_of(host) == before
