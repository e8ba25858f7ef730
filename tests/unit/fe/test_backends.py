from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from msgspec.structs import replace

from tcpha.fe.actions import Note
from tcpha.fe.backends import DIGEST_NOTE_INTERVAL_S, SETTLE_S, Backends
from tcpha.proto.handoff import SERVERS_A_MESSAGE
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Capabilities, NodeState, Server, ServerState, Status
from tcpha.proto.promise import Promise
from tcpha.rules import Endpoint

FIRST = Endpoint(IPv4Address("198.18.0.33"), 666)
SECOND = Endpoint(IPv4Address("198.18.0.38"), 666)
DIGEST = bytes(16)
STACK = Capabilities(7, True, True, 1460)
STATUS = Status(1, 1, NodeState.UP, 0, DIGEST, STACK)
VIP, OTHER_VIP = ip_address("198.18.0.36"), ip_address("198.18.0.37")
CLIENT = ip_address("192.0.2.1")
KEY = connection_key(CLIENT, 1024, VIP, 80)
NOW = 1000.0


def backends(promise: Promise | None = None) -> Backends:
    return Backends((FIRST, SECOND), promise or Promise(1460, 7, True, True), DIGEST)


def heard(each: Backends, status: Status, now: float = NOW) -> list[str]:
    """What an operator is told of a STATUS of the first."""
    return [note.text for note in each.on_status(FIRST, status, now)]


def settled(each: Backends, now: float = NOW) -> list[str]:
    """What an operator is told when what was heard until `now` has settled."""
    return [note.text for note in each.on_timer(now + SETTLE_S)]


def test_unheard_back_ends_are_excluded() -> None:
    each = backends()
    assert each.excluded(KEY) == {FIRST.addr, SECOND.addr}
    assert each.up() == []


def test_status_brings_a_back_end_up_and_says_so_once() -> None:
    each = backends()
    assert heard(each, STATUS) == ["be 198.18.0.33 is up"]
    assert heard(each, replace(STATUS, flows=7)) == []
    assert each.excluded(KEY) == {SECOND.addr}
    assert each.up() == [FIRST]


def test_lost_back_end_is_excluded_until_it_speaks() -> None:
    each = backends()
    heard(each, STATUS)
    assert each.excluded(KEY) == {SECOND.addr}
    assert each.on_lost(FIRST) == [Note("be 198.18.0.33 is not used: silent", needs_care=True)]
    assert each.excluded(KEY) == {FIRST.addr, SECOND.addr}
    assert each.up() == []
    assert heard(each, STATUS) == ["be 198.18.0.33 is up"]
    assert each.excluded(KEY) == {SECOND.addr}


@pytest.mark.parametrize("state", [NodeState.STARTING, NodeState.DRAINING, NodeState.FULL])
def test_status_of_a_node_that_is_not_up_excludes(state: NodeState) -> None:
    each = backends()
    (note,) = heard(each, replace(STATUS, state=state))
    assert state.name.lower() in note
    assert FIRST.addr in each.excluded(KEY)
    assert each.up() == [FIRST]


@pytest.mark.parametrize(
    ("stack", "name"),
    [
        (replace(STACK, window_scale=None), "window scaling"),
        (replace(STACK, sack=False), "SACK"),
        (replace(STACK, timestamps=False), "timestamps"),
    ],
)
def test_status_of_a_stack_that_cannot_keep_the_promise_excludes(stack: Capabilities, name: str) -> None:
    each = backends()
    assert heard(each, replace(STATUS, capabilities=stack)) == [
        f"be 198.18.0.33 is not used: its TCP stack does not keep the promise of {name}"
    ]
    assert FIRST.addr in each.excluded(KEY)


@pytest.mark.parametrize(
    ("promised", "own", "step"), [(7, 6, 128), (14, 0, 16384), (7, 7, 0), (0, 14, 0), (None, 0, 0)]
)
def test_status_of_a_smaller_window_scale_is_used_and_named(promised: int | None, own: int, step: int) -> None:
    each = backends(Promise(1460, promised, True, True))
    (note,) = heard(each, replace(STATUS, capabilities=replace(STACK, window_scale=own)))
    assert note.startswith("be 198.18.0.33 is up")
    assert note.endswith(f"windows that its agent translates are told in steps of {step}" if step else "is up")
    assert FIRST.addr not in each.excluded(KEY)


def test_status_with_another_window_scale_is_told_once() -> None:
    each = backends()
    heard(each, STATUS)
    smaller = replace(STATUS, capabilities=replace(STACK, window_scale=2))
    (note,) = heard(each, smaller)
    assert "its window scale 2 is below the promised 7" in note
    assert heard(each, replace(smaller, flows=1)) == []
    assert heard(each, STATUS) == ["be 198.18.0.33 is up"]


def test_status_of_a_poor_stack_suffices_for_a_poor_promise() -> None:
    each = backends(Promise(1460, None, False, False))
    heard(each, replace(STATUS, capabilities=Capabilities(None, False, False, 536)))
    assert each.excluded(KEY) == {SECOND.addr}


def test_status_without_capabilities_excludes() -> None:
    each = backends()
    heard(each, replace(STATUS, capabilities=None))
    assert FIRST.addr in each.excluded(KEY)


@pytest.mark.parametrize(
    ("state", "excluded"),
    [
        (ServerState.ANSWERS, False),
        (ServerState.UNKNOWN, False),
        (ServerState.NO_LISTENER, True),
        (ServerState.SILENT, True),
    ],
)
def test_server_state_counts_for_its_own_target_only(state: ServerState, excluded: bool) -> None:
    each = backends()
    others = (Server(VIP.packed, 81, ServerState.ANSWERS), Server(OTHER_VIP.packed, 80, ServerState.ANSWERS))
    notes = heard(each, replace(STATUS, servers=(Server(VIP.packed, 80, state), *others)))
    (note,) = notes or settled(each)
    said = "not probed" if state is ServerState.UNKNOWN else state.text
    assert (said in note) == (state is not ServerState.ANSWERS)
    assert (FIRST.addr in each.excluded(KEY)) == excluded
    assert FIRST.addr not in each.excluded(connection_key(CLIENT, 1024, VIP, 81))
    assert FIRST.addr not in each.excluded(connection_key(CLIENT, 1024, OTHER_VIP, 80))


def test_back_end_with_another_virtual_address_or_port_is_not_used_for_ours() -> None:
    each = backends()
    heard(each, replace(STATUS, servers=(Server(VIP.packed, 81, ServerState.ANSWERS),)))
    assert FIRST.addr in each.excluded(KEY)
    assert FIRST.addr not in each.excluded(connection_key(CLIENT, 1024, VIP, 81))


def test_back_end_with_more_targets_than_a_status_can_name_is_used_for_the_rest() -> None:
    each = backends()
    named = tuple(Server(VIP.packed, 1000 + number, ServerState.ANSWERS) for number in range(SERVERS_A_MESSAGE))
    heard(each, replace(STATUS, servers=named))
    assert FIRST.addr not in each.excluded(KEY)


def test_back_end_whose_server_never_answered_is_told_apart_from_one_that_cannot_probe() -> None:
    each = backends()
    heard(each, replace(STATUS, capabilities=None))
    (note,) = settled(each)
    assert "uaddr" in note
    nobody = (Server(VIP.packed, 80, ServerState.NO_LISTENER),)
    heard(each, replace(STATUS, capabilities=None, servers=nobody), NOW + 1)
    (note,) = settled(each, NOW + 1)
    assert note == f"be 198.18.0.33 is not used: {VIP} port 80: no listener"


def servers(*states: ServerState) -> tuple[Server, ...]:
    """What a probe found at ports 80, 81..."""
    return tuple(Server(VIP.packed, port, state) for port, state in enumerate(states, 80))


GONE, THERE, UNSEEN = ServerState.NO_LISTENER, ServerState.ANSWERS, ServerState.UNKNOWN


def test_listeners_go_one_after_another_one_warning_tells_of_all() -> None:
    each = backends()
    heard(each, replace(STATUS, servers=servers(THERE, THERE, THERE)))
    for step, states in enumerate([(GONE, THERE, THERE), (GONE, GONE, THERE), (GONE, GONE, GONE)]):
        assert heard(each, replace(STATUS, servers=servers(*states)), NOW + step / 1000) == []
        assert FIRST.addr in each.excluded(KEY), "what is told later is not used from now on"
    assert each.on_timer(NOW + SETTLE_S - 0.01) == []
    (note,) = each.on_timer(NOW + SETTLE_S)
    assert note.needs_care
    assert note.text == "be 198.18.0.33 is up, but " + "; ".join(
        f"{VIP} port {port}: no listener" for port in (80, 81, 82)
    )
    assert each.on_timer(NOW + 60) == []


def test_listeners_come_back_one_after_another_one_line_tells_that_all_are_there() -> None:
    each = backends()
    heard(each, replace(STATUS, servers=servers(GONE, GONE)))
    settled(each)
    assert heard(each, replace(STATUS, servers=servers(THERE, GONE)), NOW + 1) == []
    (note,) = each.on_status(FIRST, replace(STATUS, servers=servers(THERE, THERE)), NOW + 1.01)
    assert note == Note("be 198.18.0.33 is up")
    assert each.on_timer(NOW + 60) == []


def test_listener_goes_and_is_back_before_that_settled_nothing_is_told() -> None:
    each = backends()
    heard(each, replace(STATUS, servers=servers(THERE)))
    assert heard(each, replace(STATUS, servers=servers(GONE)), NOW + 1) == []
    assert heard(each, replace(STATUS, servers=servers(THERE)), NOW + 1.1) == []
    assert each.on_timer(NOW + 60) == []


def test_back_end_starts_nothing_is_told_before_its_first_probe() -> None:
    each = backends()
    assert heard(each, replace(STATUS, capabilities=None, servers=servers(UNSEEN, UNSEEN))) == []
    assert heard(each, replace(STATUS, servers=servers(THERE, UNSEEN)), NOW + 0.2) == []
    assert heard(each, replace(STATUS, servers=servers(THERE, THERE)), NOW + 0.2) == ["be 198.18.0.33 is up"]
    assert each.on_timer(NOW + 60) == []


def test_port_that_is_never_probed_is_named_without_alarm() -> None:
    each = backends()
    assert heard(each, replace(STATUS, servers=servers(THERE, UNSEEN))) == []
    assert each.on_timer(NOW + SETTLE_S) == [Note(f"be 198.18.0.33 is up, but {VIP} port 81: not probed")]


@pytest.mark.parametrize(
    ("status", "needs_care"),
    [
        (STATUS, False),
        (replace(STATUS, state=NodeState.STARTING), False),
        (replace(STATUS, state=NodeState.DRAINING), True),
        (replace(STATUS, state=NodeState.FULL), True),
        (replace(STATUS, capabilities=replace(STACK, sack=False)), True),
        (replace(STATUS, capabilities=replace(STACK, window_scale=2)), False),
    ],
)
def test_status_that_takes_a_back_end_out_of_use_needs_care(status: Status, needs_care: bool) -> None:
    (note,) = backends().on_status(FIRST, status, NOW)
    assert note.needs_care == needs_care


def test_server_that_recovers_is_used_again() -> None:
    each = backends()
    heard(each, replace(STATUS, servers=(Server(VIP.packed, 80, ServerState.SILENT),)))
    assert FIRST.addr in each.excluded(KEY)
    heard(each, replace(STATUS, servers=(Server(VIP.packed, 80, ServerState.ANSWERS),)))
    assert FIRST.addr not in each.excluded(KEY)


def test_status_with_another_digest_is_told_once_as_something_to_mend() -> None:
    each = backends()
    other = replace(STATUS, digest=bytes(15) + b"\1")
    up, differs = each.on_status(FIRST, other, NOW)
    assert (up.needs_care, differs.needs_care) == (False, True)
    assert "are not those of this front end" in differs.text
    assert heard(each, other, NOW + 3600) == []


def test_digest_changes_to_and_fro_it_is_told_at_most_once_an_interval_and_never_forgotten() -> None:
    each = backends()
    heard(each, STATUS)
    others = [replace(STATUS, digest=bytes(15) + bytes((number,))) for number in (1, 2)]
    assert len(heard(each, others[0])) == 1
    for step in range(1, 10):
        assert heard(each, (STATUS, *others)[step % 3], NOW + step) == []
    assert heard(each, others[0], NOW + 9.9) == []
    assert len(heard(each, others[0], NOW + DIGEST_NOTE_INTERVAL_S)) == 1
    assert heard(each, STATUS, NOW + 11) == []
    assert len(heard(each, others[0], NOW + 60)) == 1, "it was right in between"


# --- full


def full(flows: int) -> Status:
    return replace(STATUS, state=NodeState.FULL, flows=flows)


def up(flows: int) -> Status:
    return replace(STATUS, flows=flows)


def test_back_end_about_its_limit_is_told_full_once_and_used_whenever_it_has_room() -> None:
    each = backends()
    heard(each, up(999))
    assert heard(each, full(1000)) == ["be 198.18.0.33 is not used: full"]
    for flows in (999, 950, 990):
        assert heard(each, up(flows)) == []
        assert FIRST.addr not in each.excluded(KEY)
        assert heard(each, full(1000)) == []
        assert FIRST.addr in each.excluded(KEY)


def test_back_end_that_was_full_has_room_again_is_told_once() -> None:
    each = backends()
    heard(each, full(1000))
    assert heard(each, up(950)) == []
    assert heard(each, up(949)) == ["be 198.18.0.33 is up"]
    assert heard(each, up(999)) == []
    assert heard(each, full(1000)) == ["be 198.18.0.33 is not used: full"]


def test_back_end_about_its_limit_changes_otherwise_that_is_told() -> None:
    each = backends()
    heard(each, full(1000))
    silent = (Server(VIP.packed, 80, ServerState.SILENT),)
    heard(each, replace(up(999), servers=silent))
    (note,) = settled(each)
    assert "port 80: silent" in note
    each.on_lost(FIRST)
    assert heard(each, full(1000)) == ["be 198.18.0.33 is not used: full"]
    (note,) = heard(each, replace(up(999), state=NodeState.DRAINING))
    assert "draining" in note


# --- load


def test_load_is_what_status_says_and_what_has_changed_since() -> None:
    each = backends()
    heard(each, up(10))
    for _ in range(3):
        each.count(FIRST)
    each.discount(FIRST)
    assert (each.load(FIRST.addr), each.load(SECOND.addr)) == (12, 0)
    heard(each, up(11))
    assert each.load(FIRST.addr) == 11
    for _ in range(15):
        each.discount(FIRST)
    assert each.load(FIRST.addr) == 0, "STATUS may have counted some of them already"
