"""The back end's programs on packets of their own, one by one (BPF_PROG_TEST_RUN), in a namespace with a listener.

The kernel refuses bpf_sk_assign_tcp_reqsk outside a real device's ingress. So its result is written into the programs:
0 shows what they make of a datagram that is taken, another number what they do when the kernel says no.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from unittest.mock import patch

from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether

from tcpha.kernel import be_maps
from tcpha.kernel.be_maps import Whose, encode_tuple
from tcpha.lab import namespaces
from tcpha.net import bpf_adopter, bpf_object
from tcpha.net.bpf_adopter import INHERITS_MARK, Adopter
from tcpha.net.bpf_object import Loaded
from tcpha.proto.flow_fields import Fields, decode_field
from tcpha.proto.messages import Handoff, Identity
from tests.kernel.frames import (
    BACK_END,
    EPOCH,
    FRONT_END,
    KEYRING,
    MARK,
    PERIOD,
    PORT,
    RETRY_MARK,
    SENDER,
    TABLE,
    VIP,
    VIP_PORT,
    Datagram,
    handoff,
)  # fmt: skip

ASSIGN = "bpf_sk_assign_tcp_reqsk"
_CONTEXT_OCTETS, _MARK_OFFSET = 192, 8
PASSED_ON, DROPPED = 0xFFFFFFFF, 2
"""What other programs see as well (TC_ACT_UNSPEC), and what nobody does."""


@dataclass(frozen=True)
class Outcome:
    """What became of one packet."""

    verdict: int
    octets: bytes
    mark: int
    counts: dict[str, int]

    @property
    def count(self) -> str:
        """What was counted, which is one thing only."""
        ((name, _),) = self.counts.items()
        return name


class Rehearsal:
    """The programs, told of one front end, as the agent tells them."""

    def __init__(self, family: int, result: int, entries: Mapping[str, int] | None = None) -> None:
        def load(path: Path, *, pins: Path | None = None) -> Loaded:
            return bpf_object.load(path, pins=pins, entries=entries, results={ASSIGN: result})

        with patch.object(bpf_adopter, "load", load):
            own = ip_address(BACK_END[family]).packed
            self.adopter = Adopter((own, PORT), KEYRING, mark=MARK, retry_mark=RETRY_MARK)
        self.family = family
        self.epoch = EPOCH
        self.begin()

    def begin(self) -> None:
        """Nothing has run yet, and the front end has another epoch: what was seen counts for nothing."""
        adopter = self.adopter
        self.epoch += 1
        adopter.renew(PERIOD)
        for each in (adopter._maps["flows"], *adopter._generations.values()):
            for key in list(each.keys()):
                each.delete(key)
        adopter.news()
        adopter.answers(1 << 20)
        at = be_maps.STARTED_AND_ENDED_AT
        adopter._progress.memory[at : at + 32] = bytes(32)
        adopter.set_peer(ip_address(FRONT_END[self.family]).packed, PORT, SENDER, self.epoch, TABLE)
        adopter.set_targets([(ip_address(VIP[self.family]).packed, VIP_PORT)])

    def closed(self) -> list[Identity]:
        """What is to be told as CLOSED, read by the codec's own fields."""
        return [each for fields in self.adopter.news()[0] for each in identities(fields)]

    def held(self) -> list[tuple[int, Identity]]:
        """What is to be told as FLOWS, and to whom."""
        return [(sender, each) for sender, fields in self.adopter.news()[1] for each in identities(fields)]

    def whose(self, message: Handoff) -> Whose | None:
        """Who has the four-tuple of a HANDOFF."""
        carried = self.adopter.look_up(encode_tuple(message.identity.key))
        return None if carried is None else carried.whose

    def datagram(self, **changes: Any) -> Datagram:
        """An ordinary HANDOFF under the front end's epoch."""
        return Datagram(handoff(self.family), self.family, epoch=self.epoch).but(**changes)

    def arrive(self, frame: bytes, mark: int = 0) -> Outcome:
        """It meets the programs that stand at the ingress, one of which cares for it."""
        is_tcp = Ether(frame).haslayer(TCP) and not Ether(frame).haslayer(UDP)
        return self.run("be_segments" if is_tcp else "be_ingress", frame, mark)

    def leave(self, frame: bytes, mark: int = MARK) -> Outcome:
        return self.run("be_egress", frame, mark)

    def run(self, program: str, frame: bytes, mark: int) -> Outcome:
        before = self.adopter.counters()
        context = bytearray(_CONTEXT_OCTETS)
        struct.pack_into("=I", context, _MARK_OFFSET, mark)
        done = self.adopter._loaded.programs[program].run(frame, bytes(context))
        after = self.adopter.counters()
        (mark_after,) = struct.unpack_from("=I", done.context, _MARK_OFFSET)
        counts = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        return Outcome(done.returned, done.octets, mark_after, counts)


def identities(fields: Fields) -> list[Identity]:
    """The connections of fields that follow one another."""
    starts = range(0, len(fields.octets), fields.each)
    return [decode_field(fields.octets[start : start + fields.each]) for start in starts]


@contextmanager
def connected(family: int, port: int, mark: int = 0) -> Iterator[None]:
    """The host has a connection with its own virtual address.

    With a mark both of its sockets bear that, so the server's one is as if it had been made of a segment with it.
    """
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME-WAIT afterwards
        client.bind((VIP[family], port))
        client.connect((VIP[family], VIP_PORT))
        yield


@contextmanager
def rehearsal(
    name: str, family: int, result: int = 0, entries: Mapping[str, int] | None = None
) -> Iterator[Rehearsal]:  # fmt: skip
    """The programs in a namespace of this name, and the calling thread in it. `entries`: of maps that are smaller."""
    namespaces.create(name)
    with ExitStack() as undo:
        undo.callback(namespaces.remove, name)
        undo.enter_context(namespaces.inside(name))
        for words in (
            "ip link set lo up",
            f"ip addr add {VIP[4]}/32 dev lo",
            f"ip addr add {VIP[6]}/128 dev lo",
            f"sysctl -qw net.{INHERITS_MARK.replace('/', '.')}=1",
        ):
            subprocess.run(words.split(), check=True)
        listener = socket.create_server(("::", VIP_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
        undo.enter_context(listener)
        standing = Rehearsal(family, result, entries)
        undo.callback(standing.adopter.close)
        yield standing
