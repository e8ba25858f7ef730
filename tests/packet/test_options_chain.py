"""Options from end to end: a client's SYN through the front end's core and a back end's to the server's TCP, and back.

The two cores work on each other's real output. The server's TCP is a few lines of scapy: it grants a SYN what that
offers and it has, which is everything or, in SYN cookies without timestamps, an MSS alone (Linux, syncookies.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tcpha.be.actions import Action, DeliverArriving, DeliverLeaving, Inject
from tcpha.be.agent import Agent
from tcpha.be.translator import translate_arriving, translate_leaving
from tcpha.config import BackEndConfig, load_back_end
from tcpha.fe.actions import Reply, Send
from tcpha.proto.cookie import MSS_CLASSES, SynCookies
from tcpha.proto.messages import Handoff
from tcpha.proto.tcp import decode_segment
from tests.packet.fe_client import CLIENT, GET, MASK, VIP, Client, dissect, tcp_options
from tests.packet.fe_playbook import UTC, After, Playbook, anything

SERVER_CONFIG = """\
raddr = 198.18.0.33
vaddr = 198.18.0.36
vaddr = 2001:db8:0:1::24
fe = 198.18.0.23 666
server = 198.18.0.33 666
server = 198.18.0.38 666
rule = 198.18.0.38 jpg$
rule = 198.18.0.33 .*
probe_time = 600
"""
SERVER_ISS = 0xFFFFFF00
UNKNOWN: list[Any] = [(30, b"\x01\x01"), (34, b"cookie12"), (253, b"\xf9\x89"), (19, bytes(16)), ("NOP", None)]
"""Multipath TCP, TCP Fast Open, an experiment, an MD5 signature."""
no_deadline = settings(deadline=None, max_examples=60)
u32 = st.integers(0, MASK) | st.integers(MASK - 20, MASK)


@lru_cache
def back_end(lines: str) -> BackEndConfig:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tcphabe.conf"
        file.write_text(SERVER_CONFIG + lines)
        return load_back_end(file)


@dataclass(frozen=True)
class Promised:
    window_scale: int | None = 7
    sack: bool = True
    timestamps: bool = True
    mss: int = 1460

    def lines(self) -> str:
        values = {
            "window_scale": "none" if self.window_scale is None else self.window_scale,
            "sack": "yes" if self.sack else "no",
            "timestamps": "yes" if self.timestamps else "no",
            "mss": self.mss,
        }
        return "".join(f"{name} = {value}\n" for name, value in values.items())


@dataclass(frozen=True)
class Offered:
    window_scale: int | None = 9
    sack: bool = True
    timestamps: bool = True
    mss: int | None = 1460

    def options(self, tsval: int) -> list[Any]:
        found: list[Any] = [] if self.mss is None else [("MSS", self.mss)]
        found += [("SAckOK", b"")] if self.sack else []
        found += [("Timestamp", (tsval, 0))] if self.timestamps else []
        return found + ([] if self.window_scale is None else [("WScale", self.window_scale)])

    def agreed(self, promised: Promised) -> set[str]:
        both = {
            "Timestamp": self.timestamps and promised.timestamps,
            "SAckOK": self.sack and promised.sack,
            "WScale": self.window_scale is not None and promised.window_scale is not None,
        }
        return {name for name, value in both.items() if value}


@dataclass
class Chain:
    """One connection. `clock` is that of the server's kernel."""

    promised: Promised = field(default_factory=Promised)
    offered: Offered = field(default_factory=Offered)
    family: int = 4
    server_scale: int = 10
    cookies: bool = False
    clock: int = 5_000_000
    tsval: int = 5_001
    """Of the client's SYN."""
    extra: Sequence[Any] = ()
    syns: list[Any] = field(default_factory=list)
    """What the server's TCP was offered."""
    heard: list[Any] = field(default_factory=list)
    """TCP segments, as the client got them."""

    def __post_init__(self) -> None:
        lines = self.promised.lines()
        config = back_end(lines)
        self.book = Playbook(lines, mtu_octets=9000)
        self.agent, self.frontend = Agent(config), config.fe[0]
        self.agent.on_utc(float(UTC), 0.0)
        offers = [*self.extra, *self.offered.options(self.tsval)]
        self.client: Client = self.book.client(self.family, offers=offers, tsval=self.tsval)
        self._stimulate(self.client.syn())

    # --- the client

    def says(self, payload: bytes, at: int = 0) -> None:
        """The client sends octets of its request; its clock has gone on."""
        self.client.tsval = (self.client.tsval + 1) & MASK
        self._stimulate(self.client.sends(payload, at))

    def waits(self, seconds: float) -> None:
        self._stimulate(After(seconds))

    def _stimulate(self, stimulus: bytes | After) -> None:
        _ = self.book >> stimulus << anything
        for action in self.book.actions:
            if isinstance(action, Reply):
                self.heard.append(dissect(action.packet)[TCP])
            elif isinstance(action, Send) and isinstance(action.message, Handoff):
                self._perform(self.agent.on_message(self.frontend, action.message, 0.0, 1.0))

    def acknowledges(self, window: int = 500) -> Any:
        """The client acknowledges what it got last: the segment as the server's TCP sees it."""
        last = self.heard[-1]
        stamps = dict(last.options).get("Timestamp")
        options: list[Any] = []
        if stamps is not None:
            self.client.tsval = (self.client.tsval + 1) & MASK
            options = [("NOP", None), ("NOP", None), ("Timestamp", (self.client.tsval, stamps[0]))]
        ack = (last.seq + len(last.payload)) & MASK
        tcp = {"seq": last.ack, "ack": ack, "flags": "A", "window": window, "options": options}
        segment = decode_segment(self.client.packet(**tcp))
        (deliver,) = self.agent.on_arriving(segment, 2.0)
        assert isinstance(deliver, DeliverArriving)
        return dissect(translate_arriving(deliver.translation, segment))[TCP]

    # --- the server's TCP

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Inject):
                tcp = dissect(action.packet)[TCP]
                if tcp.flags == "S" and tcp.sport == self.client.port:
                    self.syns.append(tcp)
                    self._emit("SA", SERVER_ISS, self._granted(), 65_160)

    def _granted(self) -> list[Any]:
        """What the SYN-ACK grants: it answers the first SYN, however often that comes again."""
        asked = tcp_options({TCP: self.syns[0]})
        if self.cookies and "Timestamp" not in asked:
            return [("MSS", 1460)]
        granted: list[Any] = [("MSS", 1460)]
        granted += [("SAckOK", b"")] if "SAckOK" in asked else []
        granted += [("Timestamp", (self.clock, asked["Timestamp"][0]))] if "Timestamp" in asked else []
        return granted + ([("WScale", self.server_scale)] if "WScale" in asked else [])

    def server_says(self, payload: bytes, window: int = 500, after: int = 1, at: int = 0) -> Any:
        """The server sends octets of its answer: the segment as the client gets it."""
        self.clock = (self.clock + after) & MASK
        options: list[Any] = []
        if "Timestamp" in tcp_options({TCP: self.syns[0]}):
            options = [("NOP", None), ("NOP", None), ("Timestamp", (self.clock, self.client.tsval))]
        self._emit("PA", (SERVER_ISS + 1 + at) & MASK, options, window, payload)
        return self.heard[-1]

    def _emit(self, flags: str, seq: int, options: list[Any], window: int, payload: bytes = b"") -> None:
        ip = (IP if self.family == 4 else IPv6)(src=VIP[self.family], dst=CLIENT[self.family])
        ack = self.client.irs + 1 + (0 if "S" in flags else len(GET))
        header = TCP(
            sport=80, dport=self.client.port, seq=seq, ack=ack & MASK, flags=flags, window=window, options=options
        )
        segment = decode_segment(bytes(ip / header / payload))
        actions = self.agent.on_leaving(segment, 1.0)
        for action in actions:
            if isinstance(action, DeliverLeaving):
                self.heard.append(dissect(translate_leaving(action.translation, segment))[TCP])
        self._perform(actions)


offers = st.builds(
    Offered, st.none() | st.integers(0, 14), st.booleans(), st.booleans(), st.none() | st.integers(88, 9000)
)
promises = st.builds(
    Promised, st.none() | st.integers(0, 14), st.booleans(), st.booleans(), st.sampled_from((88, 536, 1460, 8960))
)
scales = st.integers(0, 14)
families = st.sampled_from((4, 6))


@no_deadline
@given(promises, offers, families, scales, st.booleans(), st.lists(st.sampled_from(UNKNOWN), max_size=2, unique=True))
def test_any_offer_and_promise_server_is_offered_exactly_what_was_agreed_on(
    promised: Promised, offered: Offered, family: int, server_scale: int, cookies: bool, extra: list[Any]
) -> None:
    if len(b"".join(bytes(value) for _, value in extra if value)) > 12 and offered.timestamps:
        extra = []  # they would not fit beside it
    chain = Chain(promised, offered, family, server_scale, cookies, extra=extra)
    chain.says(GET)
    agreed = offered.agreed(promised)
    granted = tcp_options({TCP: chain.heard[0]})
    assert granted["MSS"] == promised.mss - (20 if family == 6 else 0)
    assert set(granted) == agreed | {"MSS"}
    assert granted.get("WScale") == (promised.window_scale if "WScale" in agreed else None)
    default = 536 if family == 4 else 1220
    mss = max(size for size in MSS_CLASSES if size <= (default if offered.mss is None else offered.mss))
    assert chain.syns
    for syn in chain.syns:
        asked = tcp_options({TCP: syn})
        assert set(asked) == agreed | {"MSS"}
        assert asked["MSS"] == mss
        assert asked.get("WScale") == (offered.window_scale if "WScale" in agreed else None)


@pytest.mark.parametrize("flags", ["SE", "SC", "SEC", "SECN", "SN"])
@pytest.mark.parametrize("family", [4, 6])
def test_syn_wants_any_kind_of_ecn_is_answered_without(flags: str, family: int) -> None:
    """The last flag was reserved before (accurate ECN): no answer to it is a no, too."""
    book = Playbook()
    client = book.client(family)
    _ = book >> client.syn(flags=flags) << anything
    (action,) = book.actions
    assert isinstance(action, Reply)
    assert str(dissect(action.packet)[TCP].flags) == "SA"


@pytest.mark.parametrize(("sizes", "agreed"), [((1460, 536), 536), ((536, 1460), 1460)])
def test_syn_has_an_option_twice_the_last_counts(sizes: tuple[int, int], agreed: int) -> None:
    """As in Linux; no stack sends it."""
    chain = Chain(offered=Offered(mss=sizes[1]), extra=[("MSS", sizes[0])])
    chain.says(GET)
    assert {tcp_options({TCP: syn})["MSS"] for syn in chain.syns} == {agreed}


@pytest.mark.parametrize(("family", "octets"), [(4, 88), (4, 536), (6, 536), (6, 1220)])
def test_server_in_cookies_sends_more_than_a_small_mss_its_checksum_is_written(family: int, octets: int) -> None:
    """Its kernel rounds an MSS up that is smaller than all it knows; `dissect` looks at the checksum."""
    chain = Chain(offered=Offered(mss=88), family=family, cookies=True)
    chain.says(GET)
    assert len(chain.server_says(bytes(octets)).payload) == octets


@no_deadline
@given(promises, offers, families, scales, st.booleans(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
@example(Promised(7), Offered(14), 4, 0, True, 1, 0xFFFF)
@example(Promised(14), Offered(0), 6, 0, False, 1, 1)
@example(Promised(14), Offered(14), 4, 0, True, 0, 0)
@example(Promised(0), Offered(14), 4, 14, True, 0, 0)
@example(Promised(0), Offered(14), 4, 14, False, 0xFFFF, 0xFFFF)
def test_any_scales_neither_end_is_told_of_more_than_the_other_offers(
    promised: Promised, offered: Offered, family: int, server_scale: int, cookies: bool, offers: int, takes: int
) -> None:
    """`offers` is the server's field, `takes` the client's; a unit is what the smallest step of a field means."""
    chain = Chain(promised, offered, family, server_scale, cookies)
    chain.says(GET)
    agreed = offered.agreed(promised)
    knows = "WScale" in agreed and not (cookies and "Timestamp" not in agreed)
    shown = chain.server_says(b"octets", offers).window
    unit = 1 << ((promised.window_scale or 0) if "WScale" in agreed else 0)
    there_is = offers << (server_scale if knows else 0)
    assert (shown == 0) == (there_is == 0)
    assert shown * unit <= max(there_is, unit)
    assert shown == 0xFFFF or shown * unit > there_is - unit
    told = chain.acknowledges(takes).window
    scale = (offered.window_scale or 0) if "WScale" in agreed else 0
    assert told == (takes if knows or "WScale" not in agreed else min(takes << scale, 0xFFFF))


@no_deadline
@given(families, u32, u32, u32, st.lists(st.integers(0, 1 << 20), min_size=1, max_size=5), st.booleans())
@example(4, MASK, MASK, MASK, [1, 0, 1], True)
@example(6, MASK - 1, 0, MASK - 2, [3], False)
def test_any_clocks_timestamps_go_on_across_the_wrap(
    family: int, cookie: int, clock: int, tsval: int, steps: list[int], split: bool
) -> None:
    """The front end's clock stands still, at whatever its cookie says; the server's goes on from there."""
    with pytest.MonkeyPatch.context() as patch:
        digest = SynCookies._digest
        patch.setattr(SynCookies, "_digest", lambda *given: (digest(*given)[0], cookie))
        chain = Chain(family=family, clock=clock, tsval=tsval)
        if split:
            chain.says(GET[:9])
            chain.waits(0.02)
            assert tcp_options({TCP: chain.heard[-1]})["Timestamp"] == (cookie or 1, chain.client.tsval)
            chain.says(GET[9:], 9)
        else:
            chain.says(GET)
    for number, step in enumerate(steps):
        shown = chain.server_says(b"octets", after=step, at=6 * number)
        assert tcp_options({TCP: shown})["Timestamp"][1] == chain.client.tsval
        echoed = tcp_options({TCP: chain.acknowledges()})["Timestamp"]
        assert echoed == (chain.client.tsval, chain.clock), "the server's own clock comes back to it"
    told = [tcp_options({TCP: tcp})["Timestamp"][0] for tcp in chain.heard]
    taken = [(after - before) & MASK for before, after in pairwise(told)]
    assert taken == [0] * (len(told) - 1 - len(steps)) + steps
    assert told[0] == (cookie or 1)
