"""The handoff messages as scapy layers, for captures and tests: a second reading of docs/wire.md.

Must not know `handoff` or `messages`: it stands beside them, so that each proves the other. Importing it binds the
layers to UDP port 666; a tag cannot be verified here, since that takes the secret.
"""

from __future__ import annotations

from typing import Any, ClassVar

from scapy.config import conf
from scapy.fields import (
    BitField,
    ByteEnumField,
    ByteField,
    FieldLenField,
    FlagsField,
    IntField,
    LongField,
    MultipleTypeField,
    PacketListField,
    PadField,
    ShortEnumField,
    ShortField,
    StrField,
    StrFixedLenField,
    StrLenField,
    XByteField,
    XIntField,
    XShortField,
    XStrFixedLenField,
)
from scapy.layers.inet import UDP, IPField
from scapy.layers.inet6 import IP6Field
from scapy.packet import Packet, bind_bottom_up, bind_top_down

PORT = 666
NO_MESSAGE = "not a handoff message"

_MAGIC = b"TH"
_VERSION = 1
_FLAGS_OFFSET = 21
_NO_WINDOW_SCALE = 15

_TYPES = {1: "HANDOFF", 2: "ADOPTED", 3: "REFUSED", 4: "MOVED", 5: "CLOSED", 6: "STATUS", 7: "FLOWS?", 8: "FLOWS"}
_FLAGS = ["ipv6", "timestamps", "sack", "window_scale", "reserved", "confirm", "unused_64", "unused_128"]
_REASONS = {
    1: "draining",
    2: "no listener",
    3: "backlog full",
    4: "options",
    5: "not my address",
    6: "older generation",
    7: "table full",
    8: "refused before",
}
_NODE_STATES = {1: "starting", 2: "up", 3: "draining", 4: "full"}
_SERVER_STATES = {0: "unknown", 1: "answers", 2: "no listener", 3: "silent"}
_TLVS = {
    1: "RCV_NXT",
    2: "ACKNOWLEDGED",
    3: "REASON",
    4: "FLOW",
    5: "ABSENT",
    6: "NONCE",
    7: "EPOCH",
    8: "CAPABILITIES",
    9: "STATE",
    10: "SERVER",
    11: "DIGEST",
    12: "ORIGIN",
    13: "OWNER",
}


def _head(number: int, octets: int) -> list[Any]:
    return [ShortEnumField("type", number, _TLVS), ShortField("length", octets)]


def _address(name: str, is_ipv6: Any) -> Any:
    return MultipleTypeField([(IP6Field(name, "::"), is_ipv6)], IPField(name, "0.0.0.0"))  # noqa: S104 - an empty field


class Tlv(Packet):  # type: ignore[misc]  # scapy has no types
    """A field of a type or length that no other layer here describes."""

    name = "handoff field"
    lengths: ClassVar[tuple[int, ...]] = ()
    """The lengths that this layer can read."""
    fields_desc: ClassVar[list[Any]] = [
        ShortEnumField("type", 0, _TLVS),
        FieldLenField("length", None, length_of="value", fmt="!H"),
        PadField(StrLenField("value", b"", length_from=lambda tlv: tlv.length), 4),
    ]

    def extract_padding(self, octets: bytes) -> tuple[bytes, bytes]:
        """Leave what follows to the next field of the message."""
        return b"", octets


class RcvNxt(Tlv):
    """RCV_NXT: the server's TCP acknowledged everything before it."""

    lengths = (4,)
    fields_desc: ClassVar[list[Any]] = [*_head(1, 4), IntField("rcv_nxt", 0)]


class Acknowledged(Tlv):
    """ACKNOWLEDGED: the front end acknowledged everything before it."""

    lengths = (4,)
    fields_desc: ClassVar[list[Any]] = [*_head(2, 4), IntField("acknowledged", 0)]


class Reason(Tlv):
    """REASON: why a handoff was refused."""

    lengths = (1,)
    fields_desc: ClassVar[list[Any]] = [*_head(3, 1), ByteEnumField("reason", 0, _REASONS), StrFixedLenField("pad", b"\0\0\0", 3)]  # fmt: skip  # noqa: E501


class Flow(Tlv):
    """FLOW: an identity; in FLOWS? only its addresses and ports count."""

    lengths = (20, 44)
    fields_desc: ClassVar[list[Any]] = [
        *_head(4, 20),
        XIntField("irs", 0),
        XIntField("iss", 0),
        ShortField("client_port", 0),
        ShortField("vip_port", 0),
        _address("client_address", lambda tlv: tlv.length == 44),
        _address("virtual_address", lambda tlv: tlv.length == 44),
    ]


class Absent(Tlv):
    """ABSENT: a four-tuple that is not held, laid out as FLOW."""

    lengths = (20, 44)
    fields_desc: ClassVar[list[Any]] = [*_head(5, 20), *Flow.fields_desc[2:]]


class Nonce(Tlv):
    """NONCE: the sender's start nonce."""

    lengths = (8,)
    fields_desc: ClassVar[list[Any]] = [*_head(6, 8), LongField("nonce", 0)]


class Epoch(Tlv):
    """EPOCH: the epoch that the sender keeps for the receiver."""

    lengths = (4,)
    fields_desc: ClassVar[list[Any]] = [*_head(7, 4), IntField("epoch", 0)]


class Capabilities(Tlv):
    """CAPABILITIES: what a back end's TCP does."""

    lengths = (4,)
    fields_desc: ClassVar[list[Any]] = [
        *_head(8, 4),
        ByteField("window_scale", _NO_WINDOW_SCALE),
        FlagsField("flags", 0, 8, ["sack", "timestamps"]),
        ShortField("mss", 0),
    ]


class State(Tlv):
    """STATE: the node's state and load."""

    lengths = (8,)
    fields_desc: ClassVar[list[Any]] = [
        *_head(9, 8),
        ByteEnumField("state", 0, _NODE_STATES),
        StrFixedLenField("unused", b"\0\0\0", 3),
        IntField("flows", 0),
    ]


class Server(Tlv):
    """SERVER: the state of the server at one virtual address and port."""

    lengths = (8, 20)
    fields_desc: ClassVar[list[Any]] = [
        *_head(10, 8),
        ByteEnumField("state", 0, _SERVER_STATES),
        ByteField("unused", 0),
        ShortField("port", 0),
        _address("address", lambda tlv: tlv.length == 20),
    ]


class Digest(Tlv):
    """DIGEST: over server and rule lists and promises."""

    lengths = (16,)
    fields_desc: ClassVar[list[Any]] = [*_head(11, 16), XStrFixedLenField("digest", bytes(16), 16)]


class Owner(Tlv):
    """OWNER: the sender id of the back end that has the flow now."""

    lengths = (2,)
    fields_desc: ClassVar[list[Any]] = [*_head(13, 2), ShortField("owner", 0), StrFixedLenField("pad", b"\0\0", 2)]


_LAYERS: dict[int, type[Tlv]] = {
    layer.fields_desc[0].default: layer
    for layer in (RcvNxt, Acknowledged, Reason, Flow, Absent, Nonce, Epoch, Capabilities, State, Server, Digest, Owner)
}

# What each message needs: fields that stand once, fields that may, fields that may stand any number of times.
_ONCE: dict[int, tuple[type[Tlv], ...]] = {2: (RcvNxt,), 3: (Reason,), 4: (Owner,), 6: (Nonce, Epoch, State, Digest)}
_MAY: dict[int, tuple[type[Tlv], ...]] = {1: (Acknowledged,), 6: (Capabilities,)}
_MANY: dict[int, tuple[type[Tlv], ...]] = {5: (Flow,), 6: (Server,), 7: (Flow,), 8: (Flow, Absent)}


def _layer(_message: Packet, _before: list[Packet], _last: Packet | None, octets: bytes) -> type[Packet] | None:
    """Choose the layer of the field that begins `octets`: a described one only if its length fits."""
    if len(octets) < 4:
        return None
    layer = _LAYERS.get(int.from_bytes(octets[:2], "big"), Tlv)
    length = int.from_bytes(octets[2:4], "big")
    return layer if length in layer.lengths and 4 + length <= len(octets) else Tlv


class HandoffMessage(Packet):  # type: ignore[misc]  # scapy has no types
    """One message of the handoff channel; `words` is computed where it is not given."""

    name = "tcpha handoff"
    fields_desc: ClassVar[list[Any]] = [
        XStrFixedLenField("tag", bytes(16), 16),
        XShortField("magic", int.from_bytes(_MAGIC, "big")),
        ByteField("version", _VERSION),
        ByteEnumField("type", 1, _TYPES),
        ByteField("words", None),
        FlagsField("flags", 0, 8, _FLAGS),
        BitField("client_scale", 0, 4),
        BitField("promised_scale", 0, 4),
        XByteField("key", 0),
        ShortField("sender", 0),
        ShortField("mss", 0),
        ShortField("window", 0),
        ShortField("period", 0),
        IntField("epoch", 0),
        IntField("sequence", 0),
        XIntField("irs", 0),
        XIntField("iss", 0),
        IntField("tsval_sent", 0),
        IntField("tsval_client", 0),
        ShortField("client_port", 0),
        ShortField("vip_port", 0),
        _address("client_address", lambda message: message.flags.ipv6),
        _address("virtual_address", lambda message: message.flags.ipv6),
        PacketListField("tlvs", [], next_cls_cb=_layer, length_from=lambda message: _tlv_octets(message)),
        StrField("octets", b""),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
        """Take octets for a message only if they can be one."""
        return cls if _pkt is None or _has_header(_pkt) else conf.raw_layer

    def post_build(self, packet: bytes, payload: bytes) -> bytes:
        """Fill in the header's length in words."""
        if self.words is None:
            packet = packet[:20] + bytes(((len(packet) - len(self.octets)) >> 2,)) + packet[21:]
        return packet + payload

    def mysummary(self) -> str:
        """Return the line of `summary`."""
        return _line(self)


def _has_header(octets: bytes) -> bool:
    """Do the octets begin as a message does, and reach to the end of its addresses?"""
    flags = octets[_FLAGS_OFFSET] if len(octets) > _FLAGS_OFFSET else 0
    return octets[16:18] == _MAGIC and len(octets) >= _addresses_end(flags)


def _addresses_end(flags: int) -> int:
    return 92 if flags & 1 else 68


def _tlv_octets(message: Packet) -> int:
    words: int = message.words
    return max(0, words * 4 - _addresses_end(int(message.flags)))


def register(port: int = PORT) -> None:
    """Bind the layers to a UDP port, as source and as destination."""
    bind_bottom_up(UDP, HandoffMessage, sport=port)
    bind_bottom_up(UDP, HandoffMessage, dport=port)
    bind_top_down(UDP, HandoffMessage, sport=port, dport=port)


def summary(datagram: bytes) -> str:
    """Return a line for a person: the message's type, flow and what is special; `NO_MESSAGE` for anything else.

    The tag is not verified. Never raises.
    """
    if not _has_header(datagram):
        return NO_MESSAGE
    message = HandoffMessage(datagram)
    return _line(message) if _is_wellformed(message, len(datagram)) else NO_MESSAGE


def _is_wellformed(message: Packet, octets: int) -> bool:
    if message.version != _VERSION or message.type not in _TYPES:
        return False
    if not _addresses_end(int(message.flags)) <= message.words * 4 <= octets:
        return False
    if message.type == 1 and message.flags.window_scale and 15 in (message.client_scale, message.promised_scale):
        return False
    for tlv in message.tlvs:
        if not isinstance(tlv, Tlv) or (type(tlv) is Tlv and len(tlv.value) != tlv.length):
            return False
    return _has_its_fields(message)


def _has_its_fields(message: Packet) -> bool:
    once, may, many = (table.get(message.type, ()) for table in (_ONCE, _MAY, _MANY))
    for layer in (*once, *may):
        first = next((tlv for tlv in message.tlvs if _LAYERS.get(tlv.type) is layer), None)
        if (first is None and layer in once) or (first is not None and not _is_known(first)):
            return False
    return all(_is_known(tlv) for tlv in message.tlvs if _LAYERS.get(tlv.type) in many)


def _is_known(tlv: Packet) -> bool:
    """Has the field a length and a value that its layer describes?"""
    match tlv:
        case Reason():
            return tlv.reason in _REASONS
        case State():
            return tlv.state in _NODE_STATES
        case Server():
            return tlv.state in _SERVER_STATES
        case Capabilities():
            return bool(tlv.window_scale <= _NO_WINDOW_SCALE)
        case _:
            return type(tlv) is not Tlv


def _line(message: Packet) -> str:
    words = [_TYPES.get(message.type, f"type {message.type}")]
    if message.type in (1, 2, 3, 4):
        words.append(_flow(message))
    words += _particulars(message)
    return " ".join(words)


def _particulars(message: Packet) -> list[str]:
    # What scapy cannot read as any layer stands among them as raw octets.
    first = {tlv.type: tlv for tlv in reversed(message.tlvs) if isinstance(tlv, Tlv)}
    flows = [tlv for tlv in message.tlvs if isinstance(tlv, Flow)]
    match message.type, first:
        case 1, _:
            confirm = ["confirm"] if message.flags.confirm else []
            return [f"irs={message.irs:08x}", f"iss={message.iss:08x}", f"{len(message.octets)} octets", *confirm]
        case 2, {1: RcvNxt(rcv_nxt=rcv_nxt)}:
            return [f"rcv_nxt=irs+{(rcv_nxt - message.irs) & 0xFFFFFFFF}"]
        case 3, {3: Reason(reason=reason)}:
            return [_REASONS.get(reason, str(reason))]
        case 4, {13: Owner(owner=owner)}:
            return [f"owner={owner}"]
        case 5, _:
            return _listed(flows)
        case 6, {9: State(state=state, flows=held)}:
            return [_NODE_STATES.get(state, str(state)), f"flows={held}"]
        case 7, _:
            return _listed(flows) if flows else ["all"]
        case 8, _:
            absent = sum(isinstance(tlv, Absent) for tlv in message.tlvs)
            return [f"held={len(flows)}", f"absent={absent}"]
        case _:
            return []


def _listed(flows: list[Packet]) -> list[str]:
    more = [f"and {len(flows) - 1} more"] if len(flows) > 1 else []
    return [*map(_flow, flows[:1]), *more]


def _flow(flow: Packet) -> str:
    ends = (flow.client_address, flow.client_port), (flow.virtual_address, flow.vip_port)
    return " > ".join(f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in ends)


register()
