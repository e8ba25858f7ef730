"""Handoff messages octet by octet: what any other implementation must write and read, and what it must refuse.

The secret is key number 1 with the octets 00 to 1f (`conftest.SECRET`); the cookies' vectors are in test_cookie.py.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tcpha.proto.cookie import Agreement
from tcpha.proto.messages import (
    Adopted,
    Capabilities,
    Closed,
    Flows,
    FlowsQuery,
    Handoff,
    Message,
    Moved,
    NodeState,
    Reason,
    Refused,
    Server,
    ServerState,
    Status,
)
from tcpha.proto.seqnum import SeqNum
from tests.unit.proto.conftest import KEY_IPV4, KEY_IPV6, VIP_IPV4, VIP_IPV6, identity, seal

IPV4, IPV6 = identity(), identity(key=KEY_IPV6)
HANDOFF = Handoff(
    IPV4,
    Agreement(1460, 7, sack=True),
    promised_window_scale=9,
    window=502,
    period=0x9F88,
    tsval_sent=0x01020304,
    tsval_client=0x0A0B0C0D,
    confirm=True,
    acknowledged=SeqNum(0x11223349),
    octets=b"GET / HTTP/1.1\r\n",
)
STATUS = Status(
    nonce=0x0102030405060708,
    epoch=0xCAFEBABE,
    state=NodeState.UP,
    flows=3,
    digest=bytes(range(16)),
    capabilities=Capabilities(10, sack=True, timestamps=True, mss=1460),
    servers=(
        Server(VIP_IPV4.packed, 80, ServerState.ANSWERS),
        Server(VIP_IPV6.packed, 8080, ServerState.NO_LISTENER),
    ),
)

# The pieces of which the vectors consist, in hexadecimal.
SENDER_TO_SEQUENCE = "0017 05b4 01f6 9f88 a1b2c3d4 00000009"
WITHOUT_AGREEMENT = "0017 0000 0000 0000 a1b2c3d4 00000009"
NUMBERS = "11223344 55667788"
NO_STAMPS = "00000000 00000000"
ENDS_IPV4 = "9c40 0050 c612000a c6120024"
ENDS_IPV6 = "9c40 0050 20010db8 00000000 00000000 0000000a 20010db8 00000000 00000000 00000024"
NO_FLOW = WITHOUT_AGREEMENT + "00000000 00000000" + NO_STAMPS + "0000 0000 00000000 00000000"

# The envelope of all is `conftest.ENVELOPE`.
VECTORS: dict[str, tuple[Message, str, str]] = {
    # name: the message, octet 16 and what follows (magic version type words flags scales key ...), the tag
    "HANDOFF over IPv4": (
        HANDOFF,
        "5448 01 01 13 2e 79 01" + SENDER_TO_SEQUENCE + NUMBERS + "01020304 0a0b0c0d" + ENDS_IPV4
        + "0002 0004 11223349" + b"GET / HTTP/1.1\r\n".hex(),
        "699fbee79582cbeafff84fcf16bfcf71",
    ),
    "HANDOFF over IPv6, nothing agreed on, nothing acknowledged": (
        Handoff(IPV6, Agreement(536, None, sack=False), None, 65535, 1, None, 0, confirm=False, octets=b"x"),
        "5448 01 01 17 01 00 01" + "0017 0218 ffff 0001 a1b2c3d4 00000009" + NUMBERS + NO_STAMPS + ENDS_IPV6 + "78",
        "2646e1052678d2c65193f94c7319beaa",
    ),
    "HANDOFF over IPv4, only SACK agreed on": (
        Handoff(IPV4, Agreement(1220, None, sack=True), None, 65535, 1, None, 0, confirm=False),
        "5448 01 01 11 04 00 01" + "0017 04c4 ffff 0001 a1b2c3d4 00000009" + NUMBERS + NO_STAMPS + ENDS_IPV4,
        "21ce53611acc14a1cbeb13037c6aee74",
    ),
    "ADOPTED": (
        Adopted(IPV4, SeqNum(0x11223393)),
        "5448 01 02 13 00 00 01" + WITHOUT_AGREEMENT + NUMBERS + NO_STAMPS + ENDS_IPV4 + "0001 0004 11223393",
        "079ddc73a3a95e9fec704e669496f989",
    ),
    "REFUSED over IPv6": (
        Refused(IPV6, Reason.BACKLOG_FULL),
        "5448 01 03 19 01 00 01" + WITHOUT_AGREEMENT + NUMBERS + NO_STAMPS + ENDS_IPV6 + "0003 0001 03 000000",
        "a5cfdac0ce801e8bea262f1a8dce4c15",
    ),
    "REFUSED over IPv4": (
        Refused(IPV4, Reason.DRAINING),
        "5448 01 03 13 00 00 01" + WITHOUT_AGREEMENT + NUMBERS + NO_STAMPS + ENDS_IPV4 + "0003 0001 01 000000",
        "9fe3cf944fd3f331b9f7b4697db0ea48",
    ),
    "MOVED": (
        Moved(IPV4, owner=38),
        "5448 01 04 13 00 00 01" + WITHOUT_AGREEMENT + NUMBERS + NO_STAMPS + ENDS_IPV4 + "000d 0002 0026 0000",
        "1a941a12c6c78e16beebe677cb28907b",
    ),
    "CLOSED": (
        Closed((IPV4, IPV6)),
        "5448 01 05 23 00 00 01" + NO_FLOW + "0004 0014" + NUMBERS + ENDS_IPV4 + "0004 002c" + NUMBERS + ENDS_IPV6,
        "47704ec013dce7604efb6e1debe85519",
    ),
    "STATUS": (
        STATUS,
        "5448 01 06 29 00 00 01" + NO_FLOW + "0006 0008 0102030405060708" + "0007 0004 cafebabe"
        + "0009 0008 02 000000 00000003" + "000b 0010 000102030405060708090a0b0c0d0e0f" + "0008 0004 0a 03 05b4"
        + "000a 0008 01 00 0050 c6120024" + "000a 0014 02 00 1f90 20010db8 00000000 00000000 00000024",
        "f85e0ec64d08285df1b27527097893d0",
    ),
    "STATUS of a front end": (
        Status(1, 0, NodeState.DRAINING, 0, bytes(16)),
        "5448 01 06 1e 00 00 01" + NO_FLOW + "0006 0008 0000000000000001" + "0007 0004 00000000"
        + "0009 0008 03 000000 00000000" + "000b 0010" + "00" * 16,
        "5bd57555dccd8516de0b33be825dfeb3",
    ),
    "FLOWS? for all": (FlowsQuery(()), "5448 01 07 11 00 00 01" + NO_FLOW, "d3423755578d55e925efb09446e66d07"),
    "FLOWS? for one": (
        FlowsQuery((KEY_IPV4,)),
        "5448 01 07 17 00 00 01" + NO_FLOW + "0004 0014 00000000 00000000" + ENDS_IPV4,
        "a06ba91a42f97195166192835f7387ff",
    ),
    "FLOWS": (
        Flows((IPV4,), (KEY_IPV6,)),
        "5448 01 08 23 00 00 01" + NO_FLOW + "0004 0014" + NUMBERS + ENDS_IPV4
        + "0005 002c 00000000 00000000" + ENDS_IPV6,
        "5e22ae948a039cea4d77072d72206de1",
    ),
}  # fmt: skip

FLOW = bytes.fromhex(NUMBERS + ENDS_IPV4)
NONCE, EPOCH, STATE, DIGEST = (6, bytes(8)), (7, bytes(4)), (9, b"\x02" + bytes(7)), (11, bytes(16))

MALFORMED: tuple[tuple[str, Sequence[tuple[int, bytes]], str], ...] = (
    # a vector, the TLVs that stand in it instead of its own, why it is refused
    ("HANDOFF over IPv4", [(2, bytes(3))], "ACKNOWLEDGED of 3"),
    ("HANDOFF over IPv4", [(2, bytes(8)), (2, bytes(4))], "ACKNOWLEDGED of 8"),
    ("ADOPTED", [], "without RCV_NXT"),
    ("ADOPTED", [(1, bytes(5))], "RCV_NXT of 5"),
    ("FLOWS? for all", [(4, FLOW), (4, b"")], "a flow of 0"),
    ("MOVED", [], "without OWNER"),
    ("MOVED", [(13, bytes(4))], "OWNER of 4"),
    ("CLOSED", [(4, FLOW[:-1])], "a flow of 19"),
    ("CLOSED", [(4, FLOW), (4, FLOW + bytes(1))], "a flow of 21"),
    ("FLOWS", [(4, FLOW), (5, bytes(24))], "a flow of 24"),
    ("REFUSED over IPv4", [], "without REASON"),
    ("REFUSED over IPv4", [(3, bytes(2))], "REASON of 2"),
    ("REFUSED over IPv4", [(3, b"\x00")], "0 is not a valid Reason"),
    ("REFUSED over IPv4", [(3, b"\x09")], "9 is not a valid Reason"),
    ("STATUS", [EPOCH, STATE, DIGEST], "STATUS without NONCE"),
    ("STATUS", [NONCE, STATE, DIGEST], "STATUS without EPOCH"),
    ("STATUS", [NONCE, EPOCH, DIGEST], "STATUS without STATE"),
    ("STATUS", [NONCE, EPOCH, STATE], "STATUS without DIGEST"),
    ("STATUS", [NONCE, EPOCH, (9, bytes(8)), DIGEST], "0 is not a valid NodeState"),
    ("STATUS", [NONCE, EPOCH, (9, b"\x05" + bytes(7)), DIGEST], "5 is not a valid NodeState"),
    ("STATUS", [NONCE, EPOCH, STATE, DIGEST, (8, bytes(5))], "CAPABILITIES of 5"),
    ("STATUS", [NONCE, EPOCH, STATE, DIGEST, (8, b"\x10\0\0\0")], "window scale 16"),
    ("STATUS", [NONCE, EPOCH, STATE, DIGEST, (10, bytes(7))], "a server of 7"),
    ("STATUS", [NONCE, EPOCH, STATE, DIGEST, (10, b"\x04" + bytes(7))], "4 is not a valid ServerState"),
)


def with_fields(name: str, *fields: tuple[int, bytes]) -> bytes:
    """The vector with other TLVs and nothing behind them, sealed."""
    head = bytearray(bytes.fromhex(VECTORS[name][1])[:52])
    tlvs = b"".join(struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4) for number, value in fields)
    head[20 - 16] = (68 + len(tlvs)) // 4
    return seal(bytes(head) + tlvs)
