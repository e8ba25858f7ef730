"""A host's TCP as far as a replay meets it: one listener, one four-tuple, queues in between as in the real host.

What is injected reaches the TCP at once; what the TCP says waits in a queue until the script reads it (`reads`), so
that packets of a socket that is already gone are still read later. Modelled on Linux: SYN on each kind of socket,
challenge ACKs (RFC 5961), RST for what belongs to no socket, SOCK_DESTROY.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import TCP

from tcpha.be.actions import DeliverArriving, DeliverLeaving
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.tcp import Segment
from tests.packet.be_playbook import (
    CLIENTS,
    IRS,
    MASK,
    PORT,
    SERVER_TSVAL,
    VIPS,
    Event,
    Playbook,
    dissect,
    ip_layer,
    relative,
)

COOKIE = 0x40000000
"""The ISS of a host that answers with SYN cookies."""
ISS_STEP = 64_000
"""A new socket on the same four-tuple gets another ISS: the clock in it moves on."""


@dataclass
class Socket:
    """A socket that holds the four-tuple."""

    state: str
    """embryonic, established or time-wait."""
    iss: int
    rcv_nxt: int
    snd_nxt: int
    received: bytes = b""


class HostedPlaybook(Playbook):
    """A playbook whose host answers by itself."""

    def __init__(self, family: int = 4) -> None:
        self.socket: Socket | None = None
        self.listens = True
        self.is_full = False
        """The backlog is full: SYNs are dropped silently."""
        self.accepts = True
        """Has the accept queue room? Otherwise the handshake's last segment is dropped silently."""
        self.has_cookies = False
        """It answers SYNs with SYN cookies, whose timestamp tells it the options."""
        self.has_forgotten_options = False
        self.queue: list[bytes] = []
        """What leaves and was not read yet."""
        self.requests: list[bytes] = []
        """Octets that a server read, connection by connection."""
        self._next_iss = 0x7FFFFF00
        super().__init__(family)

    def reads(self) -> list[Event]:
        """Let the back end read what leaves, until nothing does."""
        events: list[Event] = []
        for _ in range(1000):
            if not self.queue:
                return events
            events += self.emits(self.queue.pop(0))
        raise AssertionError("the host and the back end talk for ever")

    def responds(self, payload: bytes) -> None:
        """The server writes."""
        assert self.socket is not None
        self._emit("PA", self.socket.snd_nxt, self.socket.rcv_nxt, payload)
        self.socket.snd_nxt = (self.socket.snd_nxt + len(payload)) & MASK

    # --- what the back end does to the host

    def destroy(self, key: ConnectionKey, embryonic: bool) -> bool:
        found = self.socket
        if found is None or (found.state == "embryonic" and not embryonic):
            return False
        self.socket = None
        if found.state == "established":
            self._emit("RA", found.snd_nxt, found.rcv_nxt)
        return True

    def received_at(self, key: ConnectionKey) -> int | None:
        return None if self.socket is None else len(self.socket.received)

    def injected(self, packet: bytes) -> None:
        tcp = dissect(packet)[TCP]
        if tcp.sport != PORT:
            return  # the probe
        if tcp.flags.R:
            if self.socket is not None and tcp.seq == self.socket.rcv_nxt:
                self.socket = None
        elif tcp.flags.S:
            self._on_syn(tcp)
        elif self.socket is None and self.has_cookies and tcp.ack == COOKIE + 1 and tcp.seq == (IRS + 1) & MASK:
            self._on_cookie(tcp)
        elif self.socket is None or (self.socket.state == "embryonic" and tcp.ack != (self.socket.iss + 1) & MASK):
            self._emit("R", tcp.ack, None)
        else:
            self._on_segment(self.socket, tcp)

    def _delivered(self, action: DeliverArriving | DeliverLeaving, segment: Segment) -> Event:
        event = super()._delivered(action, segment)
        packet = event.fields.get("packet")
        if event.what == "to server" and isinstance(packet, bytes):
            self.injected(packet)
        return event

    # --- the host's TCP

    def _on_syn(self, tcp: Any) -> None:
        found, first = self.socket, (tcp.seq + 1) & MASK
        if found is not None and found.state == "time-wait" and relative(tcp.seq, found.rcv_nxt) > 0:
            found = None
        if found is not None and found.state == "embryonic" and found.rcv_nxt == first:
            self._emit("SA", found.iss, first)
        elif found is not None:
            self._emit("A", found.snd_nxt, found.rcv_nxt)
        elif not self.listens:
            self._emit("RA", 0, first)
        elif self.has_cookies:
            self._emit("SA", COOKIE, first, tsecr=dict(tcp.options)["Timestamp"][0])
        elif not self.is_full:
            iss = self._next_iss = (self._next_iss + ISS_STEP) & MASK
            self.socket = Socket("embryonic", iss, first, (iss + 1) & MASK)
            self._emit("SA", iss, first)

    def _on_cookie(self, tcp: Any) -> None:
        if self.accepts:
            self.has_forgotten_options |= dict(tcp.options)["Timestamp"][1] != SERVER_TSVAL
            self.socket = Socket("embryonic", COOKIE, tcp.seq, COOKIE + 1)
            self._on_segment(self.socket, tcp)

    def _on_segment(self, found: Socket, tcp: Any) -> None:
        payload = bytes(tcp.payload)
        if found.state == "embryonic" and not self.accepts:
            return
        if found.state == "embryonic":
            found.state = "established"
            self.requests.append(b"")
        if tcp.seq == found.rcv_nxt:
            found.rcv_nxt = (found.rcv_nxt + len(payload) + tcp.flags.F) & MASK
            self.requests[-1] += payload
        if payload or tcp.flags.F:
            self._emit("A", found.snd_nxt, found.rcv_nxt)

    def _emit(self, flags: str, seq: int, ack: int | None, payload: bytes = b"", tsecr: int = 1) -> None:
        ip = ip_layer(self.family, VIPS[self.family], CLIENTS[self.family])
        options: list[Any] = []
        if "S" in flags:
            options = [
                ("MSS", 1460),
                ("SAckOK", b""),
                ("Timestamp", (SERVER_TSVAL, tsecr)),
                ("NOP", None),
                ("WScale", 7),
            ]
            self.server_iss = seq  # numbers are shown relative to the latest
        elif "R" not in flags:
            options = [("NOP", None), ("NOP", None), ("Timestamp", (SERVER_TSVAL, 1))]
        tcp = TCP(sport=80, dport=PORT, seq=seq & MASK, ack=ack or 0, flags=flags, window=500, options=options)
        self.queue.append(bytes(ip / tcp / payload))
