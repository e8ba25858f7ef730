"""A client's end of one TLS connection: OpenSSL makes and reads the records, the test decides how they are sent.

Must not know that handoff exists. Where an ordinary client will do, tests use curl or openssl(1).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tcpha.lab.cluster import Lab
from tests.cluster.conversation import Conversation, Family

TLS_PORT = 443
RECORD_HEADER_OCTETS = 5


def client_context(lab: Lab, *protocols: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that trusts the lab's servers only, offers `protocols` (RFC 7301), and speaks that version only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(lab.certificate)
    if protocols:
        context.set_alpn_protocols(protocols)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class TlsConversation(Conversation):
    """One connection; what is sent and received is protected."""

    def __init__(
        self, peer: socket.socket, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None
    ) -> None:
        super().__init__(peer)
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=name, session=session)

    def hello(self) -> bytes:
        """The records of the ClientHello; it is the caller's to send them, once."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._leaving.read()

    def shake_hands(self, hello: Sequence[bytes] | None = None) -> None:
        """Complete the handshake; `hello`: what is sent, piece by piece, in place of the ClientHello's record.

        Raises:
            ssl.SSLError: the server refused, or showed another certificate.
        """
        record = self.hello()
        for piece in [record] if hello is None else hello:
            self.socket.sendall(piece)
        while True:
            self._feed()
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                continue
            self._flush()
            return

    def send(self, octets: bytes) -> None:
        """Protect and send."""
        self.tls.write(octets)
        self._flush()

    def receive(self, most_octets: int) -> bytes:
        """What there is, at least an octet; none: the other side has said that nothing more comes."""
        while True:
            try:
                return self.tls.read(most_octets)
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            except ssl.SSLZeroReturnError:
                return b""

    def _feed(self) -> None:
        octets = self.socket.recv(1 << 18)
        if octets:
            self._arrived.write(octets)
        else:
            self._arrived.write_eof()

    def _flush(self) -> None:
        if octets := self._leaving.read():
            self.socket.sendall(octets)


@contextmanager
def tls_opened(
    lab: Lab,
    family: Family,
    name: str | None,
    context: ssl.SSLContext | None = None,
    *,
    vport: int = TLS_PORT,
    session: ssl.SSLSession | None = None,
) -> Iterator[TlsConversation]:
    """A connection whose handshake is still to be made; every write of the client is a segment."""
    with Conversation.open(lab, family, vport=vport, nagle=False) as opened:
        yield TlsConversation(opened.socket, context or client_context(lab), name, session)
