"""Other people's TLS: the hellos that they send, how they read ours, and what they make of the alerts."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from unittest.mock import MagicMock

import pytest
from scapy.layers.tls.extensions import TLS_Ext_ALPN, TLS_Ext_ServerName
from scapy.layers.tls.handshake import TLSClientHello
from scapy.layers.tls.record import TLSAlert

from tcpha.proto.inspect import NEED_MORE, Cause, Inspection
from tcpha.proto.inspect.tls import Alert, ClientHello, answer, inspect
from tests.unit.proto.inspect.hellos import (
    GROUPS,
    X25519,
    Hello,
    alpn,
    chrome,
    firefox,
    message,
    numbers,
    old,
    record,
    resumption,
)
from tests.unit.proto.inspect.tls_reading import accepted, refused

LIMIT_S = 20
WORDS = {
    # what OpenSSL calls the alerts
    Alert.UNEXPECTED_MESSAGE: "sslv3 alert unexpected message",
    Alert.RECORD_OVERFLOW: "tlsv1 alert record overflow",
    Alert.HANDSHAKE_FAILURE: "sslv3 alert handshake failure",
    Alert.ILLEGAL_PARAMETER: "sslv3 alert illegal parameter",
    Alert.DECODE_ERROR: "tlsv1 alert decode error",
    Alert.PROTOCOL_VERSION: "tlsv1 alert protocol version",
    Alert.INTERNAL_ERROR: "tlsv1 alert internal error",
    Alert.UNRECOGNIZED_NAME: "tlsv1 unrecognized name",
}
every_alert = pytest.mark.parametrize("alert", Alert, ids=[alert.name for alert in Alert])


class Client:
    """The standard library's, on octets alone."""

    def __init__(self, name: str | None = None, protocols: Sequence[str] = (), version: int | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        if version is not None:
            context.maximum_version = ssl.TLSVersion(version)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        self.arriving = ssl.MemoryBIO()
        leaving = ssl.MemoryBIO()
        self.connection = context.wrap_bio(self.arriving, leaving, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.connection.do_handshake()
        self.hello = leaving.read()


# hellos they send

VERSIONS = {"1.2": 0x0303, "1.3": 0x0304}


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("name", ["www.example.com", None])
@pytest.mark.parametrize("protocols", [("h2", "http/1.1"), ()])
def test_hello_of_standard_library_is_read(version: int, name: str | None, protocols: Sequence[str]) -> None:
    hello = accepted(Client(name, protocols, version).hello)
    assert hello.sni == (name.encode() if name else None)
    assert hello.alpn == (",".join(protocols).encode() if protocols else None)


# how they read ours


def by_scapy(message: bytes) -> tuple[bytes | None, bytes | None]:
    """Name and protocols. Of a session only its version is asked; a whole one would need another package."""
    name = protocols = None
    for extension in TLSClientHello(message, tls_session=MagicMock(tls_version=0x0303)).ext:
        if isinstance(extension, TLS_Ext_ServerName):
            (name,) = [entry.servername for entry in extension.servernames]
        elif isinstance(extension, TLS_Ext_ALPN):
            protocols = b",".join(entry.protocol for entry in extension.protocols)
    return name, protocols


OURS = {
    "chrome": chrome(),
    "firefox": firefox(),
    "resumption": resumption(),
    "old": old(),
    "no name": old(None),
    "protocols": Hello(alpn(b"a", b"\0\1", b"c" * 255)),
    "no extensions": Hello(None),
}


@pytest.mark.parametrize("hello", OURS.values(), ids=OURS)
def test_hello_is_read_as_scapy_reads_it(hello: Hello) -> None:
    found = accepted(hello.record)
    assert (found.sni, found.alpn) == by_scapy(hello.message)


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_hello_of_standard_library_is_read_as_scapy_reads_it(version: int) -> None:
    octets = Client("www.example.com", ["h2", "http/1.1"], version).hello
    found = accepted(octets)
    assert (found.sni, found.alpn) == by_scapy(octets[5:]) == (b"www.example.com", b"h2,http/1.1")


# what they make of alerts


@every_alert
def test_alert_is_read_by_scapy(alert: Alert) -> None:
    octets = answer(Cause.MALFORMED, None, alert)
    read = TLSAlert(octets[5:], tls_session=MagicMock(tls_version=0x0303))
    assert read.sprintf("%level% %descr%") == f"fatal {alert.name.lower()}"


@every_alert
@pytest.mark.parametrize("version", [0x0301, 0x0302, 0x0303, 0x0304], ids=["1.0", "1.1", "1.2", "1.3"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_alert_reaches_client_of_any_version(alert: Alert, version: int) -> None:
    client = Client("www.example.com", version=version)
    assert accepted(client.hello).sni == b"www.example.com"
    client.arriving.write(answer(Cause.MALFORMED, None, alert))
    client.arriving.write_eof()
    with pytest.raises(ssl.SSLError) as raised:
        client.connection.do_handshake()
    assert raised.value.reason == WORDS[alert].upper().replace(" ", "_")


def answer_of_openssl(octets: bytes) -> bytes:
    """What its server says to a hello."""
    arriving, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    arriving.write(octets)
    connection = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_bio(arriving, leaving, server_side=True)
    with pytest.raises(ssl.SSLError):
        connection.do_handshake()
    return leaving.read()


MESSAGE = Hello().message
SERVED_BY_NOBODY = {
    "another record first": record(b"\1", 20),
    "another record inside": record(MESSAGE[:50]) + record(b"\2\50", 21),
    "another message": record(message(Hello().body, 2)),
    "a record too long": b"\x16\x03\x01\x40\x01\x01" + bytes(16384),
    "a message too long": b"\x16\x03\x01\x40\x00\x01\x03\x00\x00" + bytes(16380),
    "groups twice": Hello(2 * numbers(GROUPS, X25519)).record,
    "an extension too long": record(message(Hello().body[:-1])),
}


@pytest.mark.parametrize("octets", SERVED_BY_NOBODY.values(), ids=SERVED_BY_NOBODY)
def test_refusal_has_the_alert_of_openssl(octets: bytes) -> None:
    _, alert = refused(octets)
    assert alert == answer_of_openssl(octets)[-1]


class Refuser:
    """A front end that has read one hello and answers it; listens on a path of the file system."""

    def __init__(self, path: Path, answers: bytes) -> None:
        self.hello: Inspection = NEED_MORE
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(LIMIT_S)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(LIMIT_S)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(LIMIT_S)
            octets = b""
            while self.hello is NEED_MORE and (more := connection.recv(4096)):
                octets += more
                self.hello = inspect(octets)
            connection.sendall(self._answers)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to listen; short, because such names are limited."""
    return tmp_path / "s"


def told(command: Sequence[str | Path], refuser: Refuser) -> tuple[int, str]:
    """Exit status and what a command tells its user on standard error."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    with refuser:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S)
    return done.returncode, done.stderr


@every_alert
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_alert_is_told_by_openssl(path: Path, alert: Alert, version: str) -> None:
    refuser = Refuser(path, answer(Cause.MALFORMED, None, alert))
    status, told_user = told(
        ["openssl", "s_client", "-unix", path, "-servername", "www.example.com", "-alpn", "h2,http/1.1", version],
        refuser,
    )
    assert isinstance(refuser.hello, ClientHello)
    assert (refuser.hello.sni, refuser.hello.alpn) == (b"www.example.com", b"h2,http/1.1")
    assert status != 0
    assert WORDS[alert] in told_user


@every_alert
def test_alert_is_told_by_curl(path: Path, alert: Alert) -> None:
    refuser = Refuser(path, answer(Cause.MALFORMED, None, alert))
    status, told_user = told(
        ["curl", "-q", "-sS", "--noproxy", "*", "--unix-socket", path, "https://www.example.com/"], refuser
    )
    assert isinstance(refuser.hello, ClientHello)
    assert (refuser.hello.sni, refuser.hello.alpn) == (b"www.example.com", b"h2,http/1.1")
    assert status == 35  # CURLE_SSL_CONNECT_ERROR
    assert WORDS[alert] in told_user


def test_silence_is_told_by_curl_as_a_connection_that_was_closed(path: Path) -> None:
    status, told_user = told(
        ["curl", "-q", "-sS", "--noproxy", "*", "--unix-socket", path, "https://www.example.com/"],
        Refuser(path, answer(Cause.TIMED_OUT)),
    )
    assert status == 35
    assert "alert" not in told_user


def test_curl_by_address_sends_no_name(path: Path) -> None:
    refuser = Refuser(path, answer(Cause.UNROUTED))
    status, told_user = told(
        ["curl", "-q", "-sS", "--noproxy", "*", "--unix-socket", path, "https://192.0.2.1/"], refuser
    )
    assert isinstance(refuser.hello, ClientHello)
    assert (refuser.hello.sni, status) == (None, 35)
    assert "sslv3 alert handshake failure" in told_user
