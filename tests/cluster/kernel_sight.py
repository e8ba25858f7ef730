"""What the tests see of the programs in the kernel from outside: where they are attached, what is pinned, which flows.

Must not know what a test does.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from tcpha.kernel import fe_maps
from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.net import pins
from tcpha.net.bpf import BpfMap
from tcpha.net.bpf_forwarder import PROGRAMS
from tcpha.net.bpf_object import ObjectFile
from tcpha.net.bpf_syscall import Command, call
from tcpha.proto.ip import ConnectionKey, connection_key
from tests.cluster.conversation import Conversation, Family, vip

_TCX_INGRESS, _COUNT_AT = 46, 24


def attached(node: Node) -> int:
    """How many programs there are at the ingress of a node's interface (bpf(2), BPF_PROG_QUERY)."""
    with node.enter():
        index = socket.if_nametoindex(IFACE)
        ids = ctypes.create_string_buffer(64)
        query = struct.pack("=IIIIQI", index, _TCX_INGRESS, 0, 0, ctypes.addressof(ids), 16)
        attr = ctypes.create_string_buffer(query, 64)
        call(Command.PROG_QUERY, attr, IFACE)
    return int(struct.unpack_from("=I", attr.raw, _COUNT_AT)[0])


def pinned(node: Node, role: str = "fe") -> list[str]:
    """What is pinned for a node's engine, and mounted for that."""
    state = node.directory / "state"
    with node.enter():
        places = pins.places(role, state)
    found = [str(file) for place in places if place.is_dir() for file in place.iterdir()]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted([*found, *(mount for mount in mounts if mount.startswith(str(state)))])


def key_of(lab: Lab, family: Family, client: Conversation) -> ConnectionKey:
    """The four-tuple of a client's connection to port 80."""
    return connection_key(ip_address(client.address), client.port, ip_address(vip(lab, family)), 80)


def carried(lab: Lab) -> dict[ConnectionKey, fe_maps.Carried]:
    """The flows that the front end's program has now, whether a process runs or not."""
    with _flows(lab) as flows:
        return {flow.identity.key: flow for flow in (fe_maps.decode_flow(key, value) for key, value in flows.items())}


def evict(lab: Lab, key: ConnectionKey) -> bool:
    """Take a flow away from the front end's program behind the back of the process; was there one?"""
    four_tuple = bytearray(fe_maps.TUPLE_OCTETS)
    fe_maps.write_tuple(key, four_tuple)
    with _flows(lab) as flows:
        return flows.delete(bytes(four_tuple))


@contextmanager
def _flows(lab: Lab) -> Iterator[BpfMap]:
    with lab.fe.enter():
        place = pins.directory("fe", lab.fe.directory / "state")
    shape = next(each.shape for each in ObjectFile(PROGRAMS).maps if each.name == "flows")
    found = BpfMap.pinned(place / "flows", "flows", shape)
    assert found is not None
    with found:
        yield found
