"""What the program may note of a flow that nobody has confirmed, and what it does where no process lives to decide.

A process that was killed, or hangs, leaves the flows of its back ends. A stranger must not be able to stop them.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tcpha.fe.flows import STRANGE_OCTETS
from tcpha.kernel.be_maps import encode_number
from tcpha.kernel.fe_maps import NS, encode_times
from tcpha.proto.seqnum import SeqNum, seq_add
from tests.kernel.fe_rehearsal import PASSED_UP, REDIRECTED, Stage, Twins, frame_of
from tests.packet.fe_client import GET, Client
from tests.packet.fe_playbook import UTC

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("family", [4, 6])
ENDED = pytest.mark.parametrize("how", ["just now", "long ago"])
FAR = 1 << 30


def end(twins: Twins, how: str) -> None:
    """The process ends: the ring is not read, and later there is no clock for cookies either."""
    forwarder = twins.stage.forwarder
    if how == "long ago":
        forwarder.hold()
        return
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    value = encode_times(UTC * NS - boot_ns, boot_ns + 60 * NS, twins.core.table.finished.period_floor)
    forwarder._maps["times"].update(encode_number(0), value)


def last_ack(stage: Stage, client: Client) -> int:
    """How far the program says that the client has acknowledged, in octets of the server."""
    known = stage.forwarder.look_up(client.key)
    assert known is not None
    return (known.last_ack - client.iss - 1) & 0xFFFFFFFF


# --- nobody has confirmed


def handed(twins: Twins, family: int) -> Client:
    client = Client(family)
    twins.shake(client)
    twins.see(client.sends(GET))
    return client


@BOTH
@pytest.mark.parametrize("at", [0, len(GET), 1 << 20])
def test_handed_client_acknowledges_octets_of_the_server_it_is_noted(fe_stage: Stage, at: int, family: int) -> None:
    client = handed(Twins(fe_stage), family)
    assert fe_stage.run(frame_of(client.ack(at, 100))).count == "forwarded"
    assert last_ack(fe_stage, client) == 100


@BOTH
@pytest.mark.parametrize("at", [-1, (1 << 20) + 1, 1 << 31])
def test_handed_stranger_acknowledges_octets_of_the_server_it_is_not_noted(
    fe_stage: Stage, at: int, family: int
) -> None:
    """It would end the repeats of a HANDOFF that was lost."""
    twins = Twins(fe_stage)
    client = handed(twins, family)
    assert twins.see(client.ack(at, 100))[0].count == "forwarded"
    assert twins.see(client.rst(at, 100, "RA"))[0].count == "forwarded"
    assert last_ack(fe_stage, client) == 0


@BOTH
@pytest.mark.parametrize("options", [[], None])
def test_handed_acknowledgement_is_damaged_it_is_passed_up_and_not_noted(
    fe_stage: Stage, family: int, options: list[Any] | None
) -> None:
    twins = Twins(fe_stage)
    client = handed(twins, family)
    more = {} if options is None else {"options": options}
    damaged = client.ack(len(GET), 100, chksum=1, **more)
    outcome, decision = twins.see(damaged)
    assert (outcome.count, outcome.is_raised) == ("up_checksum", False)
    assert decision.fault is not None
    assert fe_stage.run(frame_of(damaged)).count == "up_checksum"
    assert last_ack(fe_stage, client) == 0
    assert fe_stage.run(frame_of(client.ack(len(GET), 100, **more))).count == "forwarded"
    assert last_ack(fe_stage, client) == 100


# --- nobody decides


@BOTH
@ENDED
def test_unwatched_stranger_acknowledges_from_afar_the_flow_goes_on(fe_stage: Stage, how: str, family: int) -> None:
    twins, client = Twins(fe_stage), Client(family)
    twins.forward(client, GET)
    end(twins, how)
    for octets in (b"", b"x"):
        assert twins.see(client.sends(octets, len(GET), FAR))[0].verdict == REDIRECTED
        assert twins.see(client.sends(octets, len(GET), 1))[0].verdict == REDIRECTED
    known = fe_stage.forwarder.look_up(client.key)
    assert known is not None
    assert not known.is_doubted


@BOTH
@ENDED
def test_unwatched_client_acknowledges_more_than_any_does_at_once_the_flow_goes_on(
    fe_stage: Stage, how: str, family: int
) -> None:
    twins, client = Twins(fe_stage), Client(family)
    twins.forward(client, GET)
    end(twins, how)
    for jump in range(1, 4):
        assert twins.see(client.ack(len(GET), jump * (STRANGE_OCTETS + 1)))[0].verdict == REDIRECTED
    assert last_ack(fe_stage, client) == 3 * (STRANGE_OCTETS + 1)


@ENDED
def test_unwatched_options_hide_whose_a_strange_segment_is_the_flow_goes_on(fe_stage: Stage, how: str) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    end(twins, how)
    odd = [("Timestamp", (client.tsval, client.tsecr)), ("EOL", None)]
    assert twins.see(client.sends(b"x", len(GET), FAR, options=odd))[0].verdict == REDIRECTED
    assert twins.see(client.sends(b"x", len(GET), 1, options=odd))[0].verdict == REDIRECTED


def test_unwatched_stranger_sent_a_syn_in_front_of_what_the_client_sends_next_the_flow_goes_on(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    twins.see(client.syn(seq=seq_add(SeqNum(client.irs), len(GET))))
    end(twins, "long ago")
    assert twins.see(client.sends(b"x", len(GET), 1))[0].verdict == REDIRECTED


@BOTH
def test_unwatched_port_is_used_again_the_request_waits_for_the_next_process(fe_stage: Stage, family: int) -> None:
    """Its cookie says whose it is: the old connection's back end need not see it."""
    twins, new = Twins(fe_stage), Client(family, irs=0x70000000)
    twins.forward(Client(family), GET)
    twins.shake(new)
    end(twins, "just now")
    outcome, decision = twins.see(new.sends(GET))
    assert (outcome.verdict, outcome.count, outcome.is_raised) == (PASSED_UP, "up_reused", False)
    assert "ports_reused" in decision.counted
