"""Every field that a rule can look at, and every way to choose among its servers, with real clients and servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tcpha.lab.addressing import IFACE, PREFIX_LENGTH_IPV4, PREFIX_LENGTH_IPV6
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.choosy_rules import MAX_FLOWS, OTHER_CLIENTS, WEIGHT_OF_BE3
from tests.cluster.conversation import FAMILIES, Conversation, Family, get
from tests.cluster.engine_sight import await_no_flows, counters, digest
from tests.cluster.http2_client import HTTP2_PORT, Http2Client

pytestmark = pytest.mark.cluster

CLOSE = "Connection: close"
SESSIONS = [f"session=user-{number}" for number in range(24)]


@pytest.fixture(scope="module", autouse=True)
def _many_addresses(choosy_lab: Lab) -> Iterator[None]:
    """The client has many addresses, of which its kernel chooses none by itself."""
    words = [
        [f"{address}/{length}", "dev", IFACE]
        for family, length in (("ipv4", PREFIX_LENGTH_IPV4), ("ipv6", PREFIX_LENGTH_IPV6))
        for address in OTHER_CLIENTS[family]
    ]
    for each in words:
        further = ["nodad", "preferred_lft", "0"] if ":" in each[0] else []
        choosy_lab.client.run(["ip", "addr", "add", *each, *further], check=True)
    yield
    for each in words:
        choosy_lab.client.run(["ip", "addr", "del", *each], check=True)


def ask(lab: Lab, family: Family, query: str, *lines: str, address: str | None = None) -> str | None:
    """One whole answer; the node that gave it."""
    with Conversation.open(lab, family, address=address, limit_s=5.0) as client:
        answer = client.ask(get(f"/1k?{query}", CLOSE, *lines))
        assert (answer.status, answer.sha256) == (200, digest(lab, "1k"))
        return answer.node


def ask_in_turn(lab: Lab, query: str, times: int) -> Counter[str | None]:
    """So many requests, one after the other, of both families; which node answered how many."""
    return Counter(ask(lab, FAMILIES[number % 2], query) for number in range(times))


@contextmanager
def held(lab: Lab, query: str, connections: int) -> Iterator[Counter[str | None]]:
    """Connections that stay open meanwhile; which node has how many."""
    with ExitStack() as held_open:
        nodes: Counter[str | None] = Counter()
        for number in range(connections):
            client = held_open.enter_context(Conversation.open(lab, FAMILIES[number % 2]))
            answer = client.ask(get(f"/1?{query}"))
            assert answer.status == 200
            nodes[answer.node] += 1
        yield nodes
    await_no_flows(lab)


# --- fields

REQUESTS = {
    "nothing that a rule wants": ("GET", "/1k?field", [], "be1"),
    "method": ("DELETE", "/1k?field", [], "be2"),
    "path": ("GET", "/path?field", [], "be3"),
    "path only begins so": ("GET", "/path/?field", [], "be1"),
    "host": ("GET", "/1k?field", ["Host: IMG.lab.test:80"], "be2"),
    "header": ("GET", "/1k?field", ["User-Agent: A Mobile thing"], "be3"),
    "cookie": ("GET", "/1k?field", ["Cookie: alpha=off; beta=on"], "be2"),
    "cookie of another name": ("GET", "/1k?field", ["Cookie: beta2=on; abeta=on"], "be1"),
    "target": ("GET", "/target?field", [], "be3"),
    "all of several": ("GET", "/all?field", ["X: 1", "Cookie: y=2"], "be3"),
    "all but one of several": ("GET", "/all?field", ["X: 2", "Cookie: y=2"], "be1"),
    "all but another one of several": ("GET", "/all?field", ["X: 1"], "be1"),
    "query alone": ("GET", "/elsewhere?first", [], "be1"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_request_has_what_a_rule_wants_goes_where_that_says(choosy_lab: Lab, family: Family, what: str) -> None:
    method, target, lines, node = REQUESTS[what]
    host = [] if any(line.startswith("Host:") for line in lines) else ["Host: lab"]
    with Conversation.open(choosy_lab, family) as client:
        client.send("\r\n".join([f"{method} {target} HTTP/1.1", *host, *lines, CLOSE, "", ""]).encode())
        assert client.answer().node == node
        assert client.rest() == b""


@pytest.mark.parametrize(("query", "status"), [("field2", 503), ("", 503), ("field", 200)])
def test_request_has_another_query_no_rule_is_for_it(choosy_lab: Lab, family: Family, query: str, status: int) -> None:
    with Conversation.open(choosy_lab, family) as client:
        assert client.ask(get(f"/1k?{query}", CLOSE)).status == status


def test_request_comes_to_another_port_goes_where_the_rule_for_that_says(choosy_lab: Lab, family: Family) -> None:
    with Conversation.open(choosy_lab, family, vport=HTTP2_PORT) as below:
        client = Http2Client(below)
        client.send(client.preface())
        (answer,) = client.ask(["/1k?field"])
        assert (answer.status, answer.node) == (200, "be3")


def test_request_comes_from_a_network_goes_where_the_rule_for_that_says(choosy_lab: Lab, family: Family) -> None:
    *others, known = OTHER_CLIENTS[family]
    assert ask(choosy_lab, family, "field", address=known) == "be2"
    assert ask(choosy_lab, family, "field", address=others[0]) == "be1"
    assert ask(choosy_lab, family, "field") == "be1"


# --- in turn


def test_servers_take_turns_each_gets_its_half(choosy_lab: Lab) -> None:
    assert ask_in_turn(choosy_lab, "rr", 300) == {"be1": 150, "be2": 150}


def test_servers_of_different_weights_take_turns_each_gets_its_share(choosy_lab: Lab) -> None:
    share = 300 // (2 + WEIGHT_OF_BE3)
    found = ask_in_turn(choosy_lab, "weights", 300)
    assert found == {"be1": share, "be2": share, "be3": WEIGHT_OF_BE3 * share}


# --- the fewest connections


def await_reports(lab: Lab) -> None:
    """Until every back end has told how many connections it has: before, those that were given to it count as open."""
    await_no_flows(lab)
    before = counters(lab.fe)["channel"]["accepted"]
    wanted = before + 2 * len(lab.backends)
    assert wait_until(lambda: counters(lab.fe)["channel"]["accepted"] >= wanted, 5.0, 0.05)


def test_server_has_many_connections_the_other_gets_the_next_ones(choosy_lab: Lab) -> None:
    await_reports(choosy_lab)
    with held(choosy_lab, "first", 40) as nodes:
        assert nodes == {"be1": 40}
        assert ask_in_turn(choosy_lab, "least", 20) == {"be2": 20}
    assert ask_in_turn(choosy_lab, "least", 20)["be1"] > 0


def test_connections_stay_open_each_server_has_as_many_as_its_weight_says(choosy_lab: Lab) -> None:
    """But for what is on its way between two reports of a back end."""
    await_reports(choosy_lab)
    with held(choosy_lab, "least-weights", 40) as nodes:
        assert set(nodes) == {"be1", "be3"}
        assert abs(nodes["be1"] - 40 // (1 + WEIGHT_OF_BE3)) <= 2


# --- by hash


def test_client_comes_again_is_answered_where_it_was(choosy_lab: Lab, family: Family) -> None:
    nodes = {address: ask(choosy_lab, family, "client", address=address) for address in OTHER_CLIENTS[family]}
    assert len(set(nodes.values())) > 1, "all addresses hash to one server"
    for _ in range(3):
        assert {address: ask(choosy_lab, family, "client", address=address) for address in nodes} == nodes


def sessions(lab: Lab) -> dict[str, str | None]:
    """Where each session is answered: over one family, then over the other, with something before or behind it."""
    first = {each: ask(lab, "ipv4", "session", f"Cookie: {each}; theme=dark") for each in SESSIONS}
    assert {each: ask(lab, "ipv6", "session", f"Cookie: theme=light; {each}") for each in SESSIONS} == first
    return first


def test_session_stays_where_it_is_also_while_another_server_goes_and_comes(choosy_lab: Lab) -> None:
    before = sessions(choosy_lab)
    assert set(before.values()) == {"be1", "be2", "be3"}
    gone = choosy_lab.backends[1]
    assert gone.engine.stop() == 0
    try:
        meanwhile = sessions(choosy_lab)
    finally:
        gone.engine.start()
    stayed = {each: node for each, node in before.items() if node != gone.name}
    assert {each: meanwhile[each] for each in stayed} == stayed
    moved = {meanwhile[each] for each in before.keys() - stayed.keys()}
    assert moved == {"be1", "be3"}, "those of the one that is gone are spread over the others"
    own = next(each for each, node in before.items() if node == gone.name)
    assert wait_until(lambda: ask(choosy_lab, "ipv4", "session", f"Cookie: {own}") == gone.name, 5.0)
    assert sessions(choosy_lab) == before


def test_requests_without_the_cookie_take_turns(choosy_lab: Lab) -> None:
    found = ask_in_turn(choosy_lab, "session", 10)
    assert found == {"be1": 2, "be2": 2, "be3": 6}


# --- alternatives


def both_again(lab: Lab) -> bool:
    return wait_until(lambda: len(ask_in_turn(lab, "alternatives", 2)) == 2, 5.0)


def kill_server(node: Node) -> None:
    """Kill nginx; a connection to a worker that is still dying would be reset, as it would be without us."""
    node.server.kill()
    listening = ["ss", "-Hltn", "sport", "=", ":80"]
    assert wait_until(lambda: node.run(listening, check=True).stdout == "", 5.0)


@pytest.mark.parametrize("what", ["engine", "server"])
def test_one_is_down_the_other_gets_all_and_none_is_lost(choosy_lab: Lab, what: str) -> None:
    node = choosy_lab.backends[0]
    if what == "engine":
        assert node.engine.stop() == 0
    else:
        kill_server(node)
    try:
        assert ask_in_turn(choosy_lab, "alternatives", 20) == {"be2": 20}
    finally:
        node.daemons[what].start()
    assert both_again(choosy_lab)


def test_one_is_full_the_other_gets_all_and_none_is_lost(choosy_lab: Lab) -> None:
    """It refuses what comes before the front end has heard that it is full."""
    with held(choosy_lab, "first", MAX_FLOWS):
        assert ask_in_turn(choosy_lab, "alternatives", 20) == {"be2": 20}
        with Conversation.open(choosy_lab, "ipv4") as client:
            assert client.ask(get("/1k?first")).status == 503
    assert both_again(choosy_lab)


def test_both_are_down_requests_are_answered_503(choosy_lab: Lab, family: Family) -> None:
    pair = choosy_lab.backends[:2]
    for node in pair:
        kill_server(node)
    try:
        with Conversation.open(choosy_lab, family) as client:
            assert client.ask(get("/1k?alternatives")).status == 503
        assert ask(choosy_lab, family, "weights") == "be3"
    finally:
        for node in pair:
            node.server.start()
    assert both_again(choosy_lab)
