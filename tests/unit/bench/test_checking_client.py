"""The checking client believes nothing: whatever differs from what was asked for is a wrong answer."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import pytest

from bench.checking_client import Connection, Document, Target, WrongAnswerError, fetch, held, paced, upload

TARGET = Target("198.18.0.36", 80)
CONTENT = bytes(range(256)) * 4096
DOCUMENT = Document("/1m", CONTENT, "be1")

Answer = Callable[[bytes], bytes]
Serve = Callable[[Answer], None]


def answer(content: bytes = CONTENT, *, status: str = "200 OK", node: str = "be1", length: int | None = None) -> bytes:
    octets = len(content) if length is None else length
    head = f"HTTP/1.1 {status}\r\nServer-Node: {node}\r\nContent-Length: {octets}\r\n\r\n"
    return head.encode() + content


def _one_connection(end: socket.socket, answers: Answer) -> None:
    with end:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = end.recv(65536)
            if not piece:
                return
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
        while len(body) < length:
            body += end.recv(65536)
        with suppress(BrokenPipeError):  # a client that has seen enough goes away
            end.sendall(answers(head + b"\r\n\r\n" + body))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Every new connection leads to a thread that answers once and closes."""
    threads: list[threading.Thread] = []

    def start(answers: Answer) -> None:
        def connect(_address: tuple[str, int], _limit_s: float) -> socket.socket:
            ours, theirs = socket.socketpair()
            threads.append(threading.Thread(target=_one_connection, args=(theirs, answers)))
            threads[-1].start()
            return ours

        monkeypatch.setattr("bench.checking_client.socket.create_connection", connect)

    yield start
    for thread in threads:
        thread.join(5.0)
        assert not thread.is_alive()


def get() -> None:
    with Connection(TARGET) as connection:
        connection.get(DOCUMENT, closes=True)


def test_right_answer_is_taken(serve: Serve) -> None:
    requests: list[bytes] = []

    def answers(request: bytes) -> bytes:
        requests.append(request)
        return answer()

    serve(answers)
    get()
    assert requests == [b"GET /1m HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n"]


OTHER = bytearray(CONTENT)
OTHER[-1] ^= 1
WRONG = {
    "an error": (answer(status="503 Service Unavailable"), "503"),
    "another node": (answer(node="be2"), "be2"),
    "another length": (answer(CONTENT[:-1]), "Content-Length"),
    "the last octet is another": (answer(bytes(OTHER)), "other octets"),
    "too many octets": (answer(CONTENT + b"x", length=len(CONTENT)), "other octets"),
    "it ends early": (answer(CONTENT[:-1], length=len(CONTENT)), "ended early"),
    "no head": (b"x" * 20000, "no end of the head"),
    "nothing": (b"", "ended early"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answer_is_found(serve: Serve, name: str) -> None:
    octets, words = WRONG[name]
    serve(lambda _request: octets)
    with pytest.raises(WrongAnswerError, match=words):
        get()


def test_paced_counts_right_and_wrong_answers_in_turn(serve: Serve) -> None:
    serve(lambda request: answer() if b"GET /1m " in request else answer(node="be1"))
    other = Document("/other", CONTENT, "be2")
    tally = paced(nullcontext, TARGET, [DOCUMENT, other], per_s=1000, seconds=0.006)
    assert (tally.answers, len(tally.wrong), tally.errors) == (3, 3, 0)
    assert tally.octets == 3 * len(CONTENT)


def test_paced_keeps_to_its_rate(serve: Serve) -> None:
    serve(lambda _request: answer())
    tally = paced(nullcontext, TARGET, [DOCUMENT], per_s=100, seconds=0.1)
    assert tally.answers == 10
    assert tally.seconds >= 0.09


def test_nobody_listens_it_is_an_error_and_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> socket.socket:
        raise ConnectionRefusedError

    monkeypatch.setattr("bench.checking_client.socket.create_connection", refuse)
    tally = paced(nullcontext, TARGET, [DOCUMENT], per_s=1000, seconds=0.003)
    assert (tally.answers, tally.errors, tally.wrong) == (0, 3, [])


def test_fetch_by_several_at_once_counts_all_octets(serve: Serve) -> None:
    serve(lambda _request: answer())
    tally = fetch(nullcontext, TARGET, DOCUMENT, concurrency=3, seconds=0.05)
    assert tally.answers >= 3
    assert tally.octets == tally.answers * len(CONTENT)
    assert (tally.errors, tally.wrong) == (0, [])


def test_upload_is_right_only_if_its_digest_comes_back(serve: Serve) -> None:
    def answers(request: bytes) -> bytes:
        _, _, body = request.partition(b"\r\n\r\n")
        return answer(f"{hashlib.sha256(body).hexdigest()}\n".encode())

    serve(answers)
    right = upload(nullcontext, TARGET, "/sink", b"a" * 1000, "be1", concurrency=1, seconds=0.01)
    assert right.answers >= 1
    assert right.wrong == []
    serve(lambda _request: answer(b"0" * 64 + b"\n"))
    wrong = upload(nullcontext, TARGET, "/sink", b"a" * 1000, "be1", concurrency=1, seconds=0.01)
    assert wrong.answers == 0
    assert "other octets" in wrong.wrong[0]


def test_held_connections_are_open_until_the_end(serve: Serve) -> None:
    serve(lambda _request: answer())
    with held(nullcontext, TARGET, DOCUMENT, 5) as tally:
        assert (tally.answers, tally.errors, tally.wrong) == (5, 0, [])
