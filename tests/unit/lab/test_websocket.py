"""The client's side of RFC 6455 is written out by hand here: the server's functions are not asked."""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.lab.websocket import (
    LARGEST_FRAME_OCTETS,
    Echo,
    Frame,
    FrameError,
    accept_key,
    encode_frame,
    main,
    read_frame,
)
from tests.unit.lab.serving import serving

MASK = b"\x37\xfa\x21\x3d"
HELLO = bytes.fromhex("818537fa213d7f9f4d5158")
"""The masked text frame of RFC 6455, 5.7."""
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 65536:
        head = bytes((first, 0x80 | 126)) + struct.pack("!H", length)
    else:
        head = bytes((first, 0x80 | 127)) + struct.pack("!Q", length)
    return head + MASK + bytes(octet ^ MASK[at % 4] for at, octet in enumerate(payload))


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Echo]:
    with Echo(str(tmp_path / "socket")) as server, serving(server):
        yield server


def exchange(echo: Echo, *pieces: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(10)
        peer.connect(str(echo.server_address))
        for piece in pieces:
            peer.sendall(piece)
        with peer.makefile("rb") as file:
            return file.read()


def test_key_of_the_rfc_is_accepted_with_its_answer() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 100_001])
def test_message_of_any_length_comes_back_unmasked(echo: Echo, length: int) -> None:
    payload = bytes(at * 7 & 0xFF for at in range(length))
    answer = exchange(echo, UPGRADE, masked(0x82, payload), masked(0x88, b"\x03\xe8"))
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert frames.endswith(payload + b"\x88\x02\x03\xe8")
    assert frames[1] & 0x80 == 0
    assert len(frames) == len(masked(0x82, payload)) - len(MASK) + 4


def test_message_in_frames_comes_back_in_the_same_ones(echo: Echo) -> None:
    answer = exchange(echo, UPGRADE, masked(0x01, b"Hel"), masked(0x80, b"lo"), masked(0x88, b""))
    assert answer.endswith(b"\r\n\r\n\x01\x03Hel\x80\x02lo\x88\x00")


def test_ping_is_answered_and_pong_is_not(echo: Echo) -> None:
    answer = exchange(echo, UPGRADE, masked(0x8A, b"unasked"), masked(0x89, b"are you there"), masked(0x88, b""))
    assert answer.endswith(b"\r\n\r\n\x8a\x0dare you there\x88\x00")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"\x82", "no masked frame"),
        (b"\x82\x05Hello" * 4, "no masked frame"),
        (b"\xc1" + HELLO[1:], "no masked frame"),
        (HELLO[:-1], "inside a frame"),
        (HELLO[:4], "inside a frame"),
        (b"\x82\xff" + struct.pack("!Q", LARGEST_FRAME_OCTETS + 1), "too large"),
    ],
)
def test_frame_is_none_of_a_client_the_connection_ends(echo: Echo, octets: bytes, reason: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(10)
        peer.connect(str(echo.server_address))
        peer.sendall(UPGRADE + octets)
        peer.shutdown(socket.SHUT_WR)
        with peer.makefile("rb") as file:
            assert file.read().endswith(b"\r\n\r\n")
    with pytest.raises(FrameError, match=reason):
        read_frame(io.BytesIO(octets))


@pytest.mark.parametrize("without", [b"Upgrade: WebSocket\r\n", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"])
def test_request_for_no_upgrade_is_refused(echo: Echo, without: bytes) -> None:
    assert exchange(echo, UPGRADE.replace(without, b"")).startswith(b"HTTP/1.1 426 ")


@given(st.binary(max_size=300), st.sampled_from([0, 1, 2, 9]), st.booleans())
def test_frame_of_a_client_is_read_as_it_was_meant(payload: bytes, opcode: int, fin: bool) -> None:
    file = io.BytesIO(masked((0x80 if fin else 0) | opcode, payload) + b"next")
    assert read_frame(file) == Frame(fin, opcode, payload)
    assert file.read() == b"next"
    assert read_frame(io.BytesIO()) is None


def test_frames_of_the_rfc_are_read_and_written() -> None:
    assert read_frame(io.BytesIO(HELLO)) == Frame(True, 1, b"Hello")
    assert encode_frame(Frame(True, 1, b"Hello")) == bytes.fromhex("810548656c6c6f")
    assert encode_frame(Frame(True, 2, bytes(256))) == b"\x82\x7e\x01\x00" + bytes(256)
    assert encode_frame(Frame(True, 2, bytes(65536))).startswith(b"\x82\x7f" + struct.pack("!Q", 65536))


def test_server_killed_leaves_a_socket_the_next_replaces(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(path)
    Echo(path).server_close()


def test_server_without_a_socket_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: " in capsys.readouterr().err
