"""A request that is whole in its first segment is decided at once: to the same as step by step, whatever follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict as fields_of

from tcpha.errors import OptionError, WireError
from tcpha.fe import first_segment, reader
from tcpha.fe.actions import Action
from tcpha.fe.flows import Flow, FlowState
from tcpha.fe.reader import Found
from tcpha.proto.inspect.first import inspect
from tcpha.proto.messages import Adopted, Closed, Reason, Refused
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import decode_segment
from tcpha.rules import Rule, parse_rule
from tests.packet.fe_client import GET, GET_JPG, LINUX_SYN, PLAIN_SYN, POST, Client
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    EITHER,
    After,
    Lost,
    Playbook,
    Says,
    Stimulus,
    Stop,
    Verified,
    anything,
    lives,
)
from tests.unit.proto.inspect.hellos import Hello

TLS = Hello().record
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
OCTETS = (
    GET,
    GET,
    GET_JPG,
    POST,
    POST[:-3],
    POST[:-1],
    GET + GET_JPG,
    GET[:-1],
    GET[:9],
    b"\r\n" + GET,
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /" + b"a" * 1300 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"SSH-2.0-x\r\n",
    b"",
    TLS,
    TLS[:20],
    HTTP2,
)
RULES: dict[str, tuple[Rule, ...] | None] = {
    "own": None,
    "either": EITHER,
    "header": tuple(map(parse_rule, (f"{BE2.addr} host=^www$", f"{BE1.addr} path=^/"))),
    "client": tuple(map(parse_rule, (f"{BE2.addr} client=192.0.2.0/24", f"{BE1.addr} .*"))),
    "none": (parse_rule(f"{BE2.addr} ^nowhere$"),),
    "octets": tuple(map(parse_rule, (f"{BE2.addr} octets=^SSH-", f"{BE1.addr} .*"))),
    "slow": tuple(map(parse_rule, (f"{BE2.addr} (a|aa)+$", f"{BE1.addr} .*"))),
}
SETTINGS = ("", "max_flows = 1", "inspect_octets = 256", "window = 1000", "timestamps = off", "handoff_repeats = 0")


@dataclass
class Twins:
    """Two front ends that get the same; one of them goes step by step."""

    settings: str
    rules: Sequence[Rule] | None
    just_begun: bool
    mtu_octets: int
    books: tuple[Playbook, Playbook] = field(init=False)
    at_once: int = 0
    """How many segments the other one decided at once."""

    def __post_init__(self) -> None:
        up = () if self.just_begun else (BE1, BE2)
        at_once, stepwise = (
            Playbook(self.settings, self.rules, up, mtu_octets=self.mtu_octets, just_begun=self.just_begun)
            for _ in range(2)
        )
        hand_over = at_once.dispatcher._first_segments.hand_over

        def counted(*arguments: Any) -> Sequence[Action]:
            self.at_once += 1
            return hand_over(*arguments)

        at_once.dispatcher._first_segments.hand_over = counted  # type: ignore[assignment,method-assign]
        stepwise.dispatcher._first_segments.read = lambda *_: None  # type: ignore[method-assign]
        self.books = at_once, stepwise
        for book in self.books:
            book.dispatcher.table.follow(lambda _: None)

    def get(self, stimulus: Stimulus) -> None:
        outcomes: list[Any] = []
        for book in self.books:
            try:
                book >> stimulus << anything
                outcomes.append((book.actions, book.at))
            except WireError as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1]
        self.agree()

    def agree(self) -> None:
        one, other = (book.dispatcher for book in self.books)
        assert asdict(one.counters) == asdict(other.counters)
        assert list(one.table.by_key) == list(other.table.by_key)
        for mine, yours in zip(one.table.by_key.values(), other.table.by_key.values(), strict=True):
            assert known_of(mine) == known_of(yours)
        assert one.table.sizes() == other.table.sizes()
        assert list(one.table.take_changed()) == list(other.table.take_changed())
        assert list(one._enquiries._table) == list(other._enquiries._table)
        assert [flow.key for flow in one._reader._reading] == [flow.key for flow in other._reader._reading]
        assert [each.given for each in one.backends.all.values()] == [
            each.given for each in other.backends.all.values()
        ]
        assert one.next_deadline() == other.next_deadline()


def known_of(flow: Flow) -> dict[str, Any]:
    pending = flow.pending
    if pending is None:
        return fields_of(flow)
    arrived = (pending.arrivals.rcv_nxt, pending.arrivals.fin, pending.arrivals.blocks())
    asked = pending.request
    request = asked and (type(asked), asked.protocol, asked.head_octets, asked.octets)
    slow = pending.patience and pending.patience.slow
    rest = {"assembly": fields_of(pending.assembly), "patience": slow, "arrivals": arrived, "request": request}
    return fields_of(flow) | {"pending": fields_of(pending) | rest}


CLIENTS = st.builds(
    Client,
    family=st.sampled_from([4, 6]),
    port=st.sampled_from([40000, 40000, 41000]),
    irs=st.sampled_from([1000, 0xFFFFFFFF, 77_000_000]),
    offers=st.sampled_from([LINUX_SYN, PLAIN_SYN]),
)
FIRST = st.tuples(st.sampled_from(OCTETS), st.sampled_from(["PA", "PA", "A", "FPA", "PAU", "PAEC", "RA"]))
AFTER = st.one_of(
    st.builds(After, st.sampled_from([0.01, 0.06, 0.3, 2.5])),
    st.sampled_from([lives(BE1), lives(BE2), Lost(BE1), Lost(BE2), Stop()]),
)
WORDS = st.sampled_from(["adopted", "refused", "closed", "repeats", "goes on", "resets", "finishes"])


def word_of(client: Client, word: str, octets: bytes) -> Stimulus:
    """What a back end says, or the client does, behind its first segment."""
    identity = client.identity
    match word:
        case "adopted":
            return Says(BE1, Adopted(identity, seq_add(SeqNum(client.irs), 1 + len(octets))))
        case "refused":
            return Says(BE1, Refused(identity, Reason.TABLE_FULL))
        case "closed":
            return Says(BE1, Closed((identity,)))
        case "goes on":
            return client.sends(GET, len(octets), 30)
        case "resets":
            return client.rst(len(octets))
        case "finishes":
            return client.fin(len(octets))
        case _:
            return client.sends(octets)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(set(RULES) - {"slow"})),
    st.sampled_from(SETTINGS),
    st.booleans(),
    st.sampled_from([1500, 1280, 9000]),
    st.lists(
        st.tuples(CLIENTS, FIRST, st.booleans(), st.booleans(), st.lists(st.one_of(WORDS, AFTER), max_size=4)),
        min_size=1,
        max_size=4,
    ),
)
def test_any_first_segment_whatever_follows_it_comes_to_the_same(
    rules: str, lines: str, just_begun: bool, mtu_octets: int, connections: list[Any]
) -> None:
    twins = Twins(lines, RULES[rules], just_begun, mtu_octets)
    for client, (octets, flags), is_overtaken, is_verified, behind in connections:
        for book in twins.books:
            book._clients[client.family, client.port] = client
        twins.get(client.syn())
        if is_overtaken:
            twins.get(client.sends(octets, 500, 30))
        first = client.sends(octets, flags=flags)
        twins.get(Verified(first) if is_verified else first)
        for each in behind:
            twins.get(word_of(client, each, octets) if isinstance(each, str) else each)


@pytest.mark.parametrize("octets", [GET, GET_JPG, POST[:-3], b"\r\n" + GET, TLS])
def test_request_is_whole_is_decided_at_once(family: int, octets: bytes) -> None:
    twins = Twins("", None, just_begun=False, mtu_octets=1500)
    client = twins.books[0].connected(family)
    twins.books[0] >> client.sends(octets) << anything
    assert twins.at_once == 1
    assert twins.books[0].flow(client).state is (FlowState.ANSWERED if octets is TLS else FlowState.HANDING)


@pytest.mark.parametrize("octets", [GET[:-1], POST, GET + GET, b"no HTTP\r\n\r\n"])
def test_request_is_not_whole_or_there_is_more_nothing_is_decided_at_once(family: int, octets: bytes) -> None:
    twins = Twins("", None, just_begun=False, mtu_octets=1500)
    client = twins.books[0].connected(family)
    twins.books[0] >> client.sends(octets) << anything
    assert twins.at_once == 0


def test_matches_are_slow_their_time_is_counted_once() -> None:
    book = Playbook("match_time = 1ms", rules=RULES["slow"])
    client = book.connected(4)
    book >> client.sends(b"GET /" + b"a" * 100 + b"c HTTP/1.1\r\nHost: a\r\n\r\n") << anything
    flow = book.flow(client)
    assert (flow.backend, book.dispatcher._handover._rules.timeouts) == (BE1, 1)
    assert flow.pending is not None
    assert flow.pending.patience is not None
    assert (flow.pending.patience.slow, flow.pending.patience.left_s < 0.002) == (frozenset((0,)), True)


def test_rules_want_octets_none_is_decided_at_once(family: int) -> None:
    twins = Twins("", RULES["octets"], just_begun=False, mtu_octets=1500)
    client = twins.books[0].connected(family)
    assert (twins.books[0].handing(client).backend, twins.at_once) == (BE1, 0)


@pytest.mark.parametrize("octets", [GET, POST, TLS[:20], GET[:-1], b"no HTTP\r\n\r\n"])
def test_none_octets_are_looked_into_once_whatever_they_are(
    octets: bytes, family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def counted(octets: bytes, *arguments: Any, **options: Any) -> Found:
        asked.append(octets)
        return inspect(octets, *arguments, **options)

    for module in (first_segment, reader):
        monkeypatch.setattr(module, "inspect", counted)
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(octets) << anything
    assert asked == [octets]


@pytest.mark.parametrize("octets", [GET, GET[:-1]])
def test_none_cookie_is_verified_but_not_the_options_nothing_begins(octets: bytes, family: int) -> None:
    book = Playbook()
    client = book.connected(family, offers=PLAIN_SYN)
    cookie = book.dispatcher._cookie_of(decode_segment(client.sends(octets)))
    assert cookie is not None
    damaged = decode_segment(client.sends(octets, options=[(8, b"odd")]))
    with pytest.raises(OptionError):
        book.dispatcher.on_verified(damaged, cookie, book.now)
    assert not book.knows(client)
