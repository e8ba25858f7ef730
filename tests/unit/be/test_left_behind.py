"""What an earlier process left in the kernel: what goes on, what is ended, and what is somebody else's."""

from __future__ import annotations

import errno
import logging
import time
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from tcpha.be import left_behind
from tcpha.be.carried import CarriedConnections
from tcpha.be.left_behind import end_left_behind, open_adopter, take_stock, with_what_is_left
from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import Whose
from tcpha.net import bpf_namespace, bpf_terms, pins
from tcpha.net.bpf_terms import Terms
from tcpha.net.sockdiag import TcpSocket
from tcpha.proto.ip import connection_key
from tests.packet.be_playbook import QUIET, VIPS, be_config
from tests.unit.be.programs import CLIENT, MARK, Programs, Sockets, carried, identity, socket_of

CONFIG = be_config(QUIET)
OLD_MARK = 0x1234


@pytest.fixture
def sockets() -> Sockets:
    return Sockets()


def elsewhere(port: int) -> TcpSocket:
    """A socket of the host's, not at a virtual address."""
    return socket_of(replace(identity(), key=connection_key(CLIENT, port, ip_address("203.0.113.1"), 80)))


def taken_stock(programs: Programs, sockets: Sockets) -> int:
    connections = CarriedConnections(cast(Any, programs), cast(Any, sockets), MARK)
    return take_stock(CONFIG, cast(Any, programs), connections)


# Take stock


@pytest.mark.parametrize("whose", [Whose.PROGRAMS, Whose.UNSEEN, Whose.OVER])
def test_socket_is_known_it_goes_on(sockets: Sockets, whose: Whose) -> None:
    programs = Programs()
    programs.add(carried(identity(), whose))
    sockets.present = [socket_of(identity())]
    assert taken_stock(programs, sockets) == 0
    assert (sockets.destroyed, programs.whose(identity())) == ([], whose)


@pytest.mark.parametrize("family", [4, 6])
def test_socket_is_not_known_it_is_destroyed(sockets: Sockets, family: int) -> None:
    client = CLIENT if family == 4 else ip_address("2001:db8::10")
    unknown = replace(identity(), key=connection_key(client, 9, ip_address(VIPS[family]), 80))
    programs = Programs()
    programs.add(carried(identity()))
    sockets.present = [socket_of(identity()), orphan := socket_of(unknown)]
    assert taken_stock(programs, sockets) == 1
    assert sockets.destroyed == [orphan]


def test_ports_were_the_agents_nobody_has_them_and_their_socket_is_destroyed(sockets: Sockets) -> None:
    programs = Programs()
    programs.add(carried(identity(), Whose.AGENT))
    sockets.present = [orphan := socket_of(identity())]
    assert taken_stock(programs, sockets) == 1
    assert (sockets.destroyed, programs.entries) == ([orphan], {})


def test_socket_bears_another_mark_or_is_not_at_a_virtual_address_it_is_left_alone(sockets: Sockets) -> None:
    sockets.present = [socket_of(identity(), mark=0), elsewhere(1)]
    assert taken_stock(Programs(), sockets) == 0
    assert sockets.destroyed == []


def test_connection_has_no_socket_any_more_its_end_is_noted(sockets: Sockets) -> None:
    programs = Programs()
    programs.add(carried(identity(1)), carried(identity(2), Whose.UNSEEN))
    assert taken_stock(programs, sockets) == 0
    assert (programs.whose(identity(1)), programs.whose(identity(2))) == (Whose.OVER, None)


def test_earlier_process_was_about_to_end_it_it_is_ended(sockets: Sockets) -> None:
    programs = Programs()
    programs.add(carried(identity(), is_silent=True))
    sockets.present = [its := socket_of(identity())]
    taken_stock(programs, sockets)
    assert (set(sockets.destroyed), programs.entries) == ({its}, {})


@pytest.mark.parametrize("error", [None, EdgeError("socket diagnostics: no")])
def test_some_cannot_be_destroyed_the_others_are_counted(sockets: Sockets, error: EdgeError | None) -> None:
    first, second = sockets.present = [socket_of(identity(port)) for port in (1, 2)]
    sockets.kept = {first: error}
    assert taken_stock(Programs(), sockets) == 1
    assert sockets.destroyed == [second]


# Open, or end


class Kernel:
    """What is pinned, and what opening it says."""

    def __init__(self) -> None:
        self.terms: Terms | EdgeError | None = None
        self.faults: list[EdgeError] = []
        self.waited_s: list[float] = []
        self.opened = self.removed = 0

    def open(self, *_: object, **__: object) -> Programs:
        self.opened += 1
        if self.faults:
            raise self.faults.pop(0)
        return Programs()

    def remove(self, *_: object) -> bool:
        self.removed += 1
        self.terms = None
        return True

    def left(self, place: Path) -> Terms | None:
        if isinstance(self.terms, EdgeError):
            raise self.terms
        return self.terms


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(left_behind, "Adopter", made.open)
    monkeypatch.setattr(pins, "directory", lambda *_: Path("/nowhere"))
    monkeypatch.setattr(pins, "remove", made.remove)
    monkeypatch.setattr(bpf_terms, "left", made.left)
    monkeypatch.setattr(time, "sleep", made.waited_s.append)
    return made


def fault(code: int) -> EdgeError:
    """As the system call tells it."""
    made = EdgeError(errno.errorcode[code])
    made.__cause__ = OSError(code, "")
    return made


def open_it(sockets: Sockets) -> None:
    with_what_is_left(CONFIG, cast(Any, sockets), partial(open_adopter, CONFIG, cast(Any, None)))


def test_what_is_pinned_is_of_use_nothing_is_ended(kernel: Kernel, sockets: Sockets) -> None:
    sockets.present = [socket_of(identity())]
    open_it(sockets)
    assert (kernel.opened, kernel.removed, sockets.destroyed) == (1, 0, [])


def test_programs_are_opened_what_is_pinned_for_namespaces_that_are_gone_is_removed(
    kernel: Kernel, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(bpf_namespace, "remove_left", looked.append)
    open_it(sockets)
    assert looked == [pins.directory("be", CONFIG.state)]


def test_what_is_pinned_is_of_another_version_its_connections_are_ended(
    kernel: Kernel, sockets: Sockets, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.faults = [EdgeError("of before")]
    sockets.present = [left := socket_of(identity()), elsewhere(1)]
    open_it(sockets)
    assert (kernel.opened, kernel.removed, sockets.destroyed) == (2, 1, [left])
    assert "ended connections that an earlier process let the kernel carry: 1 (of before)" in caplog.text


@pytest.mark.parametrize("was_pinned", [True, False])
def test_what_is_pinned_is_of_no_use_the_log_says_why_though_no_connection_is_left(
    kernel: Kernel, sockets: Sockets, caplog: pytest.LogCaptureFixture, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, was_pinned: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(pins, "places", lambda *_: (tmp_path / "shared", tmp_path))
    if was_pinned:
        (tmp_path / "flows").touch()
    kernel.faults = [EdgeError("on other terms")]
    with caplog.at_level(logging.INFO):
        open_it(sockets)
    said = "what an earlier process pinned cannot go on, and is removed: on other terms"
    assert caplog.messages == [said] * was_pinned


def test_mark_was_another_sockets_with_that_one_are_ended_too(kernel: Kernel, sockets: Sockets) -> None:
    kernel.terms, kernel.faults = Terms(1, OLD_MARK), [EdgeError("on other terms")]
    sockets.present = [old := socket_of(identity(1), mark=OLD_MARK), new := socket_of(identity(2))]
    sockets.present += [others := socket_of(identity(3), mark=0)]
    open_it(sockets)
    assert (sockets.destroyed, sockets.present) == ([old, new], [others])


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOMEM])
@pytest.mark.parametrize("times", [1, 2])
def test_opening_fails_by_what_passes_it_is_tried_again_and_nothing_is_ended(
    kernel: Kernel, sockets: Sockets, code: int, times: int
) -> None:
    kernel.faults = [fault(code)] * times
    sockets.present = [socket_of(identity())]
    open_it(sockets)
    assert (kernel.opened, kernel.removed, sockets.destroyed) == (times + 1, 0, [])
    assert len(kernel.waited_s) == times
    assert sum(kernel.waited_s) <= 1


def test_opening_fails_by_what_passes_again_and_again_what_is_left_is_ended(kernel: Kernel, sockets: Sockets) -> None:
    kernel.faults = [fault(errno.ENOMEM) for _ in range(3)]
    sockets.present = [left := socket_of(identity())]
    open_it(sockets)
    assert (kernel.opened, kernel.removed, sockets.destroyed) == (4, 1, [left])


def test_opening_fails_by_what_does_not_pass_nobody_waits(kernel: Kernel, sockets: Sockets) -> None:
    kernel.faults = [fault(errno.EACCES)]
    open_it(sockets)
    assert (kernel.opened, kernel.removed, kernel.waited_s) == (2, 1, [])


def test_programs_cannot_be_loaded_at_all_what_is_left_is_ended_all_the_same(kernel: Kernel, sockets: Sockets) -> None:
    """Nobody would pass its packets on."""
    kernel.faults = [EdgeError("no memory"), EdgeError("no memory, either")]
    sockets.present = [left := socket_of(identity())]
    with pytest.raises(EdgeError, match="either"):
        open_it(sockets)
    assert (kernel.removed, sockets.destroyed) == (1, [left])


@pytest.mark.parametrize("terms", [None, EdgeError("bpf(2) is forbidden")])
def test_nothing_is_pinned_or_nobody_may_look_sockets_are_ended_all_the_same(
    kernel: Kernel, sockets: Sockets, terms: EdgeError | None
) -> None:
    kernel.terms = terms
    sockets.present = [left := socket_of(identity()), elsewhere(1)]
    assert end_left_behind(CONFIG, cast(Any, sockets)) == 1
    assert (kernel.removed, sockets.destroyed) == (1, [left])


@pytest.mark.parametrize("error", [None, EdgeError("socket diagnostics: no")])
def test_some_cannot_be_ended_the_others_are_and_the_log_says_how_many(
    kernel: Kernel, sockets: Sockets, caplog: pytest.LogCaptureFixture, error: EdgeError | None
) -> None:
    first, second, third = sockets.present = [socket_of(identity(port)) for port in (1, 2, 3)]
    sockets.kept = {first: error, third: error}
    assert end_left_behind(CONFIG, cast(Any, sockets)) == 1
    assert sockets.destroyed == [second]
    (line,) = caplog.messages
    assert line.startswith("connections that an earlier process left cannot be ended, 2 of 3: ")
    assert line.endswith("socket diagnostics: no" if error else "(INET_DIAG_DESTROY)")
