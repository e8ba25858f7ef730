"""Any datagrams, in any order: be_ingress and the agent's own code decide alike, and write the same octets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tcpha.kernel.be_maps import Ran
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import HEADER_OCTETS_IPV4, HEADER_OCTETS_IPV6, Envelope
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import decode_segment
from tests.kernel.frames import (
    CODEC,
    ETHER_OCTETS,
    KEYRING,
    PERIOD,
    SECOND_CODEC,
    SENDER,
    VIP,
    VIP_PORT,
    frame,
    segment_of,
    tcp_of,
)  # fmt: skip
from tests.kernel.model import Model, name
from tests.kernel.rehearsal import PASSED_ON, Rehearsal

pytestmark = pytest.mark.kernel

BOTH_KEYS = CODEC
"""Verifies both keys, seals with the first."""
assert len(KEYRING.keys) == 2

HEADER_OCTETS = {4: HEADER_OCTETS_IPV4, 6: HEADER_OCTETS_IPV6}
TAG_OCTETS, WORDS_AT = 16, 20

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
rare = st.sampled_from([False] * 12 + [True])


@st.composite
def handoffs(draw: st.DrawFn, family: int) -> Handoff:
    client = draw(st.binary(min_size=4, max_size=4) if family == 4 else st.binary(min_size=16, max_size=16))
    virtual = ip_address(VIP[family]).packed if not draw(rare) else client
    ports = draw(u16).to_bytes(2, "big") + (VIP_PORT if not draw(rare) else 81).to_bytes(2, "big")
    identity = Identity(ConnectionKey(client + virtual + ports), SeqNum(draw(u32)), SeqNum(draw(u32)))
    scales = draw(st.none() | st.tuples(st.integers(0, 14), st.integers(0, 14)))
    agreement = Agreement(draw(u16), scales and scales[0], draw(st.booleans()))
    stamps = draw(st.none() | u32)
    acknowledged = SeqNum(draw(u32)) if draw(rare) else None
    octets = draw(st.binary(max_size=200) | st.integers(0, 1404).map(lambda size: (bytes(range(256)) * 6)[:size]))
    period = PERIOD + draw(st.sampled_from([-3, -2, -1, 0, 0, 0, 0, 1, 2]))
    return Handoff(
        identity, agreement, scales and scales[1], draw(u16), period, stamps, 0 if stamps is None else draw(u32),
        draw(st.booleans()), acknowledged, octets,
    )  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, octets: bytes, family: int) -> bytes:
    """The datagram, mostly as it was."""
    how = draw(st.sampled_from(["", "", "", "", "bit", "cut", "more", "noise", "resealed"]))
    if how == "bit":
        at = draw(st.integers(0, len(octets) * 8 - 1))
        return bytes([*octets[: at >> 3], octets[at >> 3] ^ 1 << (at & 7), *octets[(at >> 3) + 1 :]])
    if how == "cut":
        return octets[: draw(st.integers(0, len(octets)))]
    if how == "more":
        return octets + draw(st.binary(min_size=1, max_size=80))
    if how == "noise":
        return draw(st.binary(max_size=300))
    if how == "resealed":  # hostile, but by one who knows the key
        # What is said of TLVs is left alone: in HANDOFFs that bear any the programs read none.
        at = draw(st.sampled_from([*range(TAG_OCTETS, WORDS_AT), *range(WORDS_AT + 1, HEADER_OCTETS[family])]))
        changed = bytearray(octets)
        changed[at] = draw(st.integers(0, 255))
        return (
            CODEC._tag(changed[23], bytes(changed[16:])) + bytes(changed[16:])
            if changed[23] in (1, 7)
            else bytes(changed)
        )
    return octets


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_datagrams_arrive_program_and_agent_decide_alike(programs: Rehearsal, data: st.DataObject) -> None:
    programs.begin()
    family = programs.family
    target = (ip_address(VIP[family]).packed, VIP_PORT)
    periods = range(PERIOD - 2, PERIOD + 2)
    model = Model(BOTH_KEYS, programs.epoch, SENDER, target, periods)
    sent: list[bytes] = []
    known: list[Handoff] = []
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(rare) and sent:
            octets = data.draw(st.sampled_from(sent))
        else:
            again = data.draw(st.booleans()) and bool(known)
            message = data.draw(st.sampled_from(known)) if again else data.draw(handoffs(family))
            if data.draw(rare) and known:  # on the ports of another one
                key = data.draw(st.sampled_from(known)).identity.key
                message = replace(message, identity=replace(message.identity, key=key))
            known.append(message)
            envelope = Envelope(
                SENDER if not data.draw(rare) else data.draw(u16),
                programs.epoch if not data.draw(rare) else data.draw(u32),
                data.draw(st.integers(0, 3) | st.sampled_from([4096, 4097, 8193]) | u32),
            )
            codec = data.draw(st.sampled_from([CODEC, CODEC, SECOND_CODEC]))
            octets = data.draw(damaged(codec.encode(envelope, message), family))
            sent.append(octets)
        if data.draw(rare) and known:
            message = data.draw(st.sampled_from(known))
            if (
                message.period in periods
                and programs.adopter.claim_identity(message.identity, message.period) is Ran.AGENT
            ):
                model.ran.add(name(message))
        arrived = frame(octets, family)
        expected = model.adopts(octets)
        outcome = programs.arrive(arrived)
        assert outcome.verdict == PASSED_ON
        if expected is None:
            assert "adopted" not in outcome.counts
            assert (outcome.octets, outcome.mark) == (arrived, 0)
        else:
            assert outcome.counts == {"adopted": 1}
            assert tcp_of(outcome.octets) == segment_of(expected)
            decode_segment(outcome.octets[ETHER_OCTETS:]).check_checksum()


@given(st.binary(max_size=1600))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_octets_arrive_they_pass_untouched(programs: Rehearsal, octets: bytes) -> None:
    octets = octets.ljust(54, b"\0")  # the kernel runs no program on half an IP header
    for head in (b"", programs.datagram().frame()[: 42 if programs.family == 4 else 62]):
        arrived = head + octets
        outcome = programs.arrive(arrived)
        assert (outcome.verdict, outcome.octets, outcome.mark) == (PASSED_ON, arrived, 0)
        assert programs.leave(arrived).octets == arrived
