"""What the agent's own code says of a datagram: the codec opens it, `Freshness` judges it. The programs must agree."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

from tcpha.errors import WireError
from tcpha.peers import Freshness, Verdict
from tcpha.proto.handoff import HEADER_OCTETS_IPV4, HEADER_OCTETS_IPV6, HandoffCodec
from tcpha.proto.ip import ConnectionKey, key_addresses, key_ports
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.seqnum import SeqNum

MAX_OCTETS = 16 + 24 * 64
"""The longest datagram that the programs open."""


@dataclass(frozen=True)
class Holder:
    """The connection that a four-tuple had last, and the number of its HANDOFF."""

    identity: Identity
    sequence: int
    is_agents: bool
    """What else comes for the four-tuple goes to the agent."""
    is_carried: bool
    """A program has adopted it."""


class Model:
    """One back end that hears one front end."""

    def __init__(self, codec: HandoffCodec, epoch: int, sender: int, target: tuple[bytes, int], periods: range) -> None:
        self._codec = codec
        self._freshness = Freshness(epoch)
        self._freshness._open(epoch, 1)
        self._sender = sender
        self._target = target
        self._periods = {period & 0xFFFF for period in periods}
        self.ran: set[tuple[ConnectionKey, SeqNum, int, int]] = set()
        self._holders: dict[ConnectionKey, Holder] = {}

    def adopts(self, datagram: bytes) -> Handoff | None:
        """The HANDOFF, if a program may run it, and then it is run."""
        try:
            envelope, message = self._codec.decode(datagram)
        except WireError:
            return None
        if not isinstance(message, Handoff) or envelope.sender != self._sender:
            return None
        judged = deepcopy(self._freshness).judge(envelope.epoch, envelope.sequence, None)
        if judged is not Verdict.FRESH or message.period not in self._periods:
            return None
        if (key_addresses(message.identity.key)[1], key_ports(message.identity.key)[1]) != self._target:
            return None
        if len(datagram) > MAX_OCTETS or not self._takes_its_ports(message, envelope.sequence, datagram[20] * 4):
            return None
        self._freshness.judge(envelope.epoch, envelope.sequence, None)
        self.ran.add(name(message))
        return message

    def _takes_its_ports(self, message: Handoff, sequence: int, header_octets: int) -> bool:
        """May it, whatever its four-tuple had before? If it goes to the agent, what follows does so, too."""
        identity = message.identity
        holder = self._holders.get(identity.key)
        if holder is not None and holder.identity != identity and sequence <= holder.sequence:
            return False
        has_tlvs = header_octets != (HEADER_OCTETS_IPV4 if len(self._target[0]) == 4 else HEADER_OCTETS_IPV6)
        if has_tlvs or (holder is not None and holder.is_agents):
            if holder is not None and holder.is_carried:
                self._holders[identity.key] = replace(holder, is_agents=True)
            else:
                self._holders[identity.key] = Holder(identity, sequence, is_agents=True, is_carried=False)
            return False
        if (holder is not None and holder.identity == identity) or name(message) in self.ran:
            return False
        self._holders[identity.key] = Holder(identity, sequence, is_agents=False, is_carried=True)
        return True


def name(message: Handoff) -> tuple[ConnectionKey, SeqNum, int, int]:
    """What the connection is remembered by."""
    identity = message.identity
    return (identity.key, identity.irs, identity.iss >> 8, message.period & 0xFFFF)
