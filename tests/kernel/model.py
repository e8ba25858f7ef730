"""What the agent's own code says of a datagram: the codec opens it, `Freshness` judges it. The programs must agree."""

from __future__ import annotations

from copy import deepcopy

from tcpha.errors import WireError
from tcpha.peers import Freshness, Verdict
from tcpha.proto.handoff import HEADER_OCTETS_IPV4, HEADER_OCTETS_IPV6, HandoffCodec
from tcpha.proto.ip import ConnectionKey, key_addresses, key_ports
from tcpha.proto.messages import Handoff
from tcpha.proto.seqnum import SeqNum

MAX_OCTETS = 16 + 24 * 64
"""The longest datagram that the programs open."""


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

    def adopts(self, datagram: bytes) -> Handoff | None:
        """The HANDOFF, if a program may run it, and then it is run."""
        try:
            envelope, message = self._codec.decode(datagram)
        except WireError:
            return None
        if not isinstance(message, Handoff) or envelope.sender != self._sender:
            return None
        judged = deepcopy(self._freshness).judge(envelope.epoch, envelope.sequence, None)
        if judged is not Verdict.FRESH or message.period not in self._periods or name(message) in self.ran:
            return None
        key = message.identity.key
        if (key_addresses(key)[1], key_ports(key)[1]) != self._target:
            return None
        whole = HEADER_OCTETS_IPV4 if len(self._target[0]) == 4 else HEADER_OCTETS_IPV6
        if datagram[20] * 4 != whole or len(datagram) > MAX_OCTETS:
            return None
        self._freshness.judge(envelope.epoch, envelope.sequence, None)
        self.ran.add(name(message))
        return message


def name(message: Handoff) -> tuple[ConnectionKey, SeqNum, int, int]:
    """What the connection is remembered by."""
    identity = message.identity
    return (identity.key, identity.irs, identity.iss >> 8, message.period & 0xFFFF)
