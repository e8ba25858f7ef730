"""docs/wire.md: the handoff channel's layout as tables, and the program that writes them down.

    python -m tcpha.proto.wiredoc            write docs/wire.md
    python -m tcpha.proto.wiredoc --check    exit status 1 if docs/wire.md is not what would be written

The tables say in words what `handoff` and `cookie` do in code; tests hold both, and the layers of `dissect`, together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tcpha.proto.cookie import MSS_CLASSES, PERIOD_S, Agreement, SynCookies
from tcpha.proto.handoff import FLOWS_A_MESSAGE, SERVERS_A_MESSAGE, Envelope, Flag, HandoffCodec, Tlv, Type
from tcpha.proto.ip import connection_key, key_text
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Handoff, Identity, NodeState, Reason, ServerState
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.wiretext import TEXT

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "wire.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One field: where it begins (octets from the start of its block), how long it is, what it means."""

    offset: int
    octets: int
    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class TlvRow:
    """One type-length-value field."""

    number: Tlv
    meaning: str
    layouts: tuple[tuple[Row, ...], ...]
    """One or two layouts of the value, offsets from its first octet: for IPv4, for IPv6; none: not used yet."""


def length_octets(layout: tuple[Row, ...]) -> int:
    """Return the length of a block: where its last row ends."""
    return layout[-1].offset + layout[-1].octets


FIXED = (
    Row(0, 16, "tag", "keyed BLAKE2s-128 over octet 16 to the end of the datagram"),
    Row(16, 2, "magic", "0x5448, `TH`"),
    Row(18, 1, "version", "1"),
    Row(19, 1, "type", "see Messages"),
    Row(20, 1, "words", "length of the header in units of 4 octets, from the tag to the end of the last TLV"),
    Row(21, 1, "flags", "see Flags"),
    Row(22, 1, "scales", "high nibble: the client's window scale; low nibble: the one that the front end promised"),
    Row(23, 1, "key", "number of the key that made the tag"),
    Row(24, 2, "sender", "the sender's id, 1 to 65535"),
    Row(26, 2, "mss", "the client's MSS, as the cookie carried it"),
    Row(28, 2, "window", "the window of the client's last segment, not scaled"),
    Row(30, 2, "period", "the cookie's period, its low 16 bits"),
    Row(32, 4, "epoch", "the epoch that the receiver keeps for the sender, 0 if it is not known"),
    Row(36, 4, "sequence", "grows with each message of the sender to this receiver, from 1"),
    Row(40, 4, "irs", "the client's initial sequence number"),
    Row(44, 4, "iss", "the front end's initial sequence number: the cookie"),
    Row(48, 4, "tsval_sent", "the last TSval that was sent to the client"),
    Row(52, 4, "tsval_client", "the client's TSval to be echoed: the earliest that was not acknowledged"),
    Row(56, 2, "client_port", "the client's port"),
    Row(58, 2, "vip_port", "the virtual address's port"),
)
ADDRESSES = {
    4: (
        Row(60, 4, "client_address", "the client's address"),
        Row(64, 4, "virtual_address", "the virtual address"),
    ),
    6: (
        Row(60, 16, "client_address", "the client's address"),
        Row(76, 16, "virtual_address", "the virtual address"),
    ),
}
FLAGS = (
    (Flag.IPV6, "the addresses have 16 octets each, else 4"),
    (Flag.TIMESTAMPS, "timestamps were agreed on; else `tsval_sent` and `tsval_client` are 0"),
    (Flag.SACK, "selective acknowledgement was agreed on"),
    (Flag.WINDOW_SCALE, "windows are scaled, in both directions; else `scales` is 0"),
    (Flag.RESERVED, "not used"),
    (Flag.CONFIRM, "the sender wants an ADOPTED"),
)
_FLOW = (
    Row(0, 4, "irs", "as in the header, 0 where only the four-tuple counts"),
    Row(4, 4, "iss", "as in the header, 0 where only the four-tuple counts"),
    Row(8, 2, "client_port", "the client's port"),
    Row(10, 2, "vip_port", "the virtual address's port"),
)
_FLOW_LAYOUTS = tuple(
    (*_FLOW, Row(12, octets, "client_address", ""), Row(12 + octets, octets, "virtual_address", ""))
    for octets in (4, 16)
)
_SERVER_LAYOUTS = tuple(
    (
        Row(0, 1, "state", "see Numbers"),
        Row(1, 1, "zero", ""),
        Row(2, 2, "port", "the virtual address's port"),
        Row(4, octets, "address", "the virtual address"),
    )
    for octets in (4, 16)
)
TLVS = (
    TlvRow(Tlv.RCV_NXT, "how far the server's TCP has the request",
           ((Row(0, 4, "rcv_nxt", "the server's TCP acknowledged every octet before it"),),)),
    TlvRow(Tlv.ACKNOWLEDGED, "the FE answers for octets that the client will not send again",
           ((Row(0, 4, "acknowledged", "the client was told, by ACK or SACK, of octets before it"),),)),
    TlvRow(Tlv.REASON, "why a handoff is refused", ((Row(0, 1, "reason", "see Numbers"),),)),
    TlvRow(Tlv.FLOW, "an identity, or a four-tuple that is asked for", _FLOW_LAYOUTS),
    TlvRow(Tlv.ABSENT, "an asked four-tuple that is not held", _FLOW_LAYOUTS),
    TlvRow(Tlv.NONCE, "tells a process from its predecessor", ((Row(0, 8, "nonce", "random, drawn at start"),),)),
    TlvRow(Tlv.EPOCH, "under which epoch the sender accepts", ((Row(0, 4, "epoch", "see Replays"),),)),
    TlvRow(Tlv.CAPABILITIES, "what a BE's TCP does, found by its own probe", ((
        Row(0, 1, "window_scale", "0 to 14; 15: windows are not scaled"),
        Row(1, 1, "flags", "1 SACK, 2 timestamps"),
        Row(2, 2, "mss", "its MSS"),
    ),)),
    TlvRow(Tlv.STATE, "state and load of the sender", ((
        Row(0, 1, "state", "see Numbers"),
        Row(1, 3, "zero", ""),
        Row(4, 4, "flows", "connections that the sender holds"),
    ),)),
    TlvRow(Tlv.SERVER, "what the BE's probe found at one virtual address and port", _SERVER_LAYOUTS),
    TlvRow(Tlv.DIGEST, "equal on nodes that may work together",
           ((Row(0, 16, "digest", "BLAKE2s-128 over server list, rules and promises"),),)),
    TlvRow(Tlv.ORIGIN, "reserved, not sent yet: for connections that move between BEs, the identity's irs and iss", ()),
    TlvRow(Tlv.OWNER, "where the flow lives now", ((Row(0, 2, "owner", "sender id of the BE that has it"),),)),
)  # fmt: skip
MESSAGES = (
    # type, from -> to, whether the header names the flow, TLVs, meaning
    (Type.HANDOFF, "FE to BE", True, "ACKNOWLEDGED?", "adopt this connection"),
    (Type.ADOPTED, "BE to FE", True, "RCV_NXT", "the connection is rebuilt"),
    (Type.REFUSED, "BE to FE", True, "REASON", "not adopted, nothing reached a server"),
    (
        Type.MOVED,
        "BE to FE",
        True,
        "OWNER",
        "reserved, not sent yet: for connections that move between BEs, where the flow lives now",
    ),
    (Type.CLOSED, "BE to FE", False, "FLOW*", "these flows are over; from FE to BE: destroy what you built, silently"),
    (Type.STATUS, "both ways", False, "NONCE EPOCH STATE DIGEST CAPABILITIES? SERVER*", "I live, this is what I am"),
    (Type.FLOWS_QUERY, "FE to BE", False, "FLOW*", "do you hold these? with no FLOW: which of mine do you hold?"),
    (Type.FLOWS, "BE to FE", False, "FLOW* ABSENT*", "these I hold; of the asked ones, these I do not"),
)
TIMES = (
    # meaning, default, its unit, key of the configuration
    ("before a HANDOFF is repeated; each further wait is twice as long", 50, "ms", "handoff_repeat"),
    ("how often it is repeated", 3, "times", "handoff_repeats"),
    ("from the last repeat to the end of the wait for an answer", 450, "ms", "handoff_wait"),
    ("a HANDOFF that lay longer in the BE's socket is dropped unread", 250, "ms", "stale_time"),
    ("between two STATUS; one more at each change", 250, "ms", "status_time"),
    ("a peer that is silent for longer is down", 1000, "ms", "dead_time"),
    ("most FLOWS? that an FE sends", 1000, "a second", "query_rate"),
)
COOKIE_BLOCK = (
    Row(0, 16, "client address", "an IPv4 address in its IPv6 form, `::ffff:a.b.c.d`"),
    Row(16, 16, "virtual address", "likewise"),
    Row(32, 2, "client port", ""),
    Row(34, 2, "VIP port", ""),
    Row(36, 4, "irs", "sequence number of the client's SYN"),
    Row(40, 4, "period", f"UTC in seconds divided by {PERIOD_S}, rounded down"),
    Row(44, 20, "zero", ""),
)
EXAMPLE_SECRET = Key(1, bytes(range(32)))
EXAMPLE_UTC_S = 1_700_000_000
EXAMPLE_IRS = SeqNum(0x11223344)


def example() -> tuple[Envelope, Handoff]:
    """Return the worked example: a cookie, and the message that hands its connection off."""
    key = connection_key(ip_address("198.18.0.10"), 40000, ip_address("198.18.0.36"), 80)
    agreement = Agreement(1460, 7, sack=True)
    iss, tsval = SynCookies(Keyring((EXAMPLE_SECRET,))).make(key, EXAMPLE_IRS, agreement, EXAMPLE_UTC_S)
    message = Handoff(
        Identity(key, EXAMPLE_IRS, iss), agreement, promised_window_scale=7, window=502,
        period=EXAMPLE_UTC_S // PERIOD_S & 0xFFFF, tsval_sent=tsval, tsval_client=1_000_000, confirm=True,
        acknowledged=SeqNum(EXAMPLE_IRS + 5), octets=b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n",
    )  # fmt: skip
    return Envelope(sender=23, epoch=0xA1B2C3D4, sequence=9), message


def example_datagram() -> bytes:
    """Return the worked example, sealed."""
    return HandoffCodec(Keyring((EXAMPLE_SECRET,))).encode(*example())


# --- writing


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def _rows(rows: Iterable[Row]) -> str:
    return _table(
        ("offset", "octets", "name", "meaning"), ((row.offset, row.octets, row.name, row.meaning) for row in rows)
    )


def _tlv_rows() -> Iterable[tuple[object, ...]]:
    names: dict[tuple[Row, ...], list[str]] = {}
    for tlv in TLVS:
        for layout in tlv.layouts:
            names.setdefault(layout, []).append(tlv.number.name)
    for layout, sharing in names.items():
        for row in layout:
            yield ", ".join(sharing), length_octets(layout), row.offset, row.octets, row.name, row.meaning


def _lengths(tlv: TlvRow) -> str:
    return " or ".join(str(length_octets(layout)) for layout in tlv.layouts)


def _type_name(number: Type) -> str:
    return "FLOWS?" if number is Type.FLOWS_QUERY else number.name


def _numbers(enumeration: Iterable[Reason | NodeState | ServerState]) -> str:
    return ", ".join(f"{each.value} {each.name.lower().replace('_', ' ')}" for each in enumeration)


def _example_table(datagram: bytes) -> str:
    header_end = datagram[20] * 4
    rows = [
        *((row, _example_note(row, datagram)) for row in (*FIXED, *ADDRESSES[4])),
        (Row(68, 4, "TLV", ""), "ACKNOWLEDGED, 4 octets"),
        (Row(72, 4, "acknowledged", ""), "irs + 5: four request octets"),
        (Row(header_end, len(datagram) - header_end, "request octets", ""), "from irs + 1"),
    ]
    return _table(
        ("offset", "octets in hexadecimal", "field", "reads"),
        (
            (row.offset, f"`{datagram[row.offset : row.offset + row.octets].hex(' ', -4)}`", row.name, note)
            for row, note in rows
        ),
    )


def _example_note(row: Row, datagram: bytes) -> str:
    value = int.from_bytes(datagram[row.offset : row.offset + row.octets], "big")
    notes = {
        "tag": "with the sub-key of `tcpha handoff`",
        "magic": "`TH`",
        "type": "HANDOFF",
        "words": f"{value * 4} octets",
        "flags": ", ".join(flag.name for flag, _ in FLAGS if flag & value),
        "scales": "7 and 7",
        "client_address": "198.18.0.10",
        "virtual_address": "198.18.0.36",
        "irs": "",
        "iss": "the cookie",
        "epoch": "",
    }
    return notes.get(row.name, str(value))


def _dump(datagram: bytes) -> str:
    return "\n".join(f"    {datagram[at : at + 32].hex(' ', -4)}" for at in range(0, len(datagram), 32))


def _cookie_example() -> str:
    message = example()[1]
    identity = message.identity
    return (
        f"With the key of the example below, {key_text(identity.key)}, irs {identity.irs:#010x}, MSS 1460, "
        f"window scale 7,\nSACK and UTC {EXAMPLE_UTC_S} s (period {EXAMPLE_UTC_S // PERIOD_S}): "
        f"iss = {identity.iss:#010x}, TSval = {message.tsval_sent:#010x}.\n"
    )


def render() -> str:
    """Return the text of docs/wire.md."""
    datagram = example_datagram()
    return TEXT.format(
        fixed=_rows(FIXED),
        ipv4=_rows(ADDRESSES[4]),
        ipv6=_rows(ADDRESSES[6]),
        flags=_table(("value", "name", "meaning"), ((int(flag), flag.name, meaning) for flag, meaning in FLAGS)),
        tlvs=_table(
            ("type", "name", "length", "meaning"),
            ((int(tlv.number), tlv.number.name, _lengths(tlv), tlv.meaning) for tlv in TLVS),
        ),
        values=_table(("TLV", "length", "offset", "octets", "name", "meaning"), _tlv_rows()),
        flows=FLOWS_A_MESSAGE,
        servers=SERVERS_A_MESSAGE,
        messages=_table(
            ("type", "name", "from, to", "flow", "TLVs", "meaning"),
            (
                (int(number), _type_name(number), ends, "yes" if identity else "no", fields, meaning)
                for number, ends, identity, fields, meaning in MESSAGES
            ),
        ),
        reasons=_numbers(Reason),
        node_states=_numbers(NodeState),
        server_states=_numbers(ServerState),
        times=_table(
            ("time", "default", "key of the configuration"),
            ((meaning, f"{default} {unit}", f"`{key}`") for meaning, default, unit, key in TIMES),
        ),
        cookie=_rows(COOKIE_BLOCK),
        classes=", ".join(f"{index} = {mss}" for index, mss in enumerate(MSS_CLASSES)),
        cookie_example=_cookie_example(),
        example=_example_table(datagram),
        dump=_dump(datagram),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document, or compare it. Returns: the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tcpha.proto.wiredoc", description="Write docs/wire.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if it differs")
    parser.add_argument("document", nargs="?", type=Path, default=DOCUMENT)
    options = parser.parse_args(arguments)
    if not options.check:
        options.document.write_text(render(), encoding="utf-8")
        return 0
    is_current = options.document.exists() and options.document.read_text(encoding="utf-8") == render()
    if not is_current:
        sys.stderr.write(f"{options.document} is not up to date: python -m tcpha.proto.wiredoc writes it\n")
    return 0 if is_current else 1


if __name__ == "__main__":
    sys.exit(main())
