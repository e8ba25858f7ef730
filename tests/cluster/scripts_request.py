"""Scripts of the request: in how many pieces, in which order, with what around it."""

from __future__ import annotations

from tests.cluster.scripts import ACK, ANSWERED, ASK, ASKED, CONNECTED, GET, again, piece, pieces
from tests.cluster.wire_script import BOTH, HEARD, LISTEN, SENT, Listens, Script, Sends

END = len(GET)
BEGUN = (*CONNECTED, piece(0, 10), LISTEN)
REST = piece(10, END)
LONG = pieces(b"GET /1k HTTP/1.1\r\nHost: lab\r\nX: " + b"x" * 5000 + b"\r\n\r\n", 1000)
POST = b"POST /sink HTTP/1.1\r\nHost: lab\r\nContent-Length: 5000\r\n\r\n"
BODY = b"0123456789" * 500
SHUT = Sends("PA", GET, window=0)

_PIECES = (
    Script("request in two segments", *CONNECTED, piece(0, 10), REST, LISTEN, ACK, LISTEN, families=BOTH),
    Script("request in two segments with a pause", *BEGUN, REST, LISTEN, families=BOTH),
    Script("request in three segments", *CONNECTED, piece(0, 10), piece(10, 20), piece(20, END), LISTEN),
    Script("request octet by octet", *CONNECTED, *pieces(GET, 1), LISTEN, ACK, LISTEN),
    Script("request of 5 KB in many segments", *CONNECTED, *LONG, LISTEN, families=BOTH),
    Script(
        "request of 5 KB in many segments with pauses", *CONNECTED, *(step for one in LONG for step in (one, LISTEN))
    ),
    Script(
        "request's second segment first",
        *(*CONNECTED, REST, piece(0, 10), LISTEN, REST, LISTEN),
        families=BOTH,
    ),
    Script("request's second segment alone, then all", *CONNECTED, REST, LISTEN, piece(0, 10), LISTEN, REST, LISTEN),
    Script(
        "request's third segment before the second",
        *(*CONNECTED, piece(0, 10), piece(20, END), LISTEN, piece(10, 20), LISTEN),
    ),
    Script(
        "request of many segments, the second lost",
        *(*CONNECTED, LONG[0], *LONG[2:], LISTEN, LONG[1], LISTEN),
    ),
    Script("request in overlapping segments", *CONNECTED, piece(0, 20), LISTEN, REST, LISTEN),
    Script("request's first segment twice", *BEGUN, piece(0, 10), LISTEN, REST, LISTEN),
    Script("request twice at once", *CONNECTED, ASK, again(ASK), LISTEN),
    Script("request repeated after its answer", *ANSWERED, again(ASK), LISTEN, families=BOTH),
)

_MORE = (
    Script("request and another one behind it", *CONNECTED, Sends("PA", GET + GET), LISTEN, ACK, LISTEN),
    Script("second request", *ANSWERED, ASK, LISTEN, ACK, LISTEN, families=BOTH),
    Script("second request in the acknowledgement of the answer", *ASKED, ASK, LISTEN),
    Script("request with a body in many segments", *CONNECTED, *pieces(POST + BODY, 1000), LISTEN, ACK, LISTEN),
    Script(
        "request with a body that follows later",
        *(*CONNECTED, Sends("PA", POST), LISTEN, Sends("PA", BODY[:1000]), LISTEN),
        *pieces(POST + BODY, 1000, begin=len(POST) + 1000),
        LISTEN,
    ),
    Script("empty line before the request", *CONNECTED, Sends("PA", b"\r\n" + GET), LISTEN),
    Script("request without PSH", *CONNECTED, Sends("A", GET), LISTEN),
    Script("request with an urgent octet", *CONNECTED, Sends("PAU", GET, tcp={"urgptr": 4}), LISTEN),
    Script("request with ECE and CWR", *CONNECTED, Sends("PAEC", GET), LISTEN),
)

_STRANGE = (
    Script("request without ACK", *CONNECTED, Sends("P", GET), LISTEN, ASK, LISTEN),
    Script("request of another number than the next", *CONNECTED, Sends("PA", GET, seq=1000), LISTEN, ASK, LISTEN),
    Script("request far beyond the window", *CONNECTED, Sends("PA", GET, seq=1_000_000), LISTEN, ASK, LISTEN),
    Script(
        "request that acknowledges what was never sent",
        *(*CONNECTED, Sends("PA", GET, ack=HEARD + 500), LISTEN, again(ASK), LISTEN),
    ),
    Script(
        "data far beyond the window after the answer",
        *(*ANSWERED, Sends("PA", GET, seq=SENT + 1_000_000), LISTEN),
        families=BOTH,
    ),
    Script(
        "data with a gap after the answer",
        *(*ANSWERED, Sends("PA", GET[10:], seq=SENT + 10), LISTEN, Sends("A", GET[:10]), LISTEN),
    ),
    Script("acknowledgement of what was never sent", *ANSWERED, Sends("A", ack=HEARD + 5000), LISTEN),
    Script("acknowledgement that is old", *ANSWERED, Sends("A", ack=1), LISTEN),
    Script("older timestamp", *ANSWERED, Sends("PA", GET, options=(("Timestamp", (1, 0)),)), LISTEN),
)

_PROBES = (
    Script("keep-alive probe before the request", *CONNECTED, Sends("A", seq=0), LISTEN, ASK, LISTEN, families=BOTH),
    Script(
        "keep-alive probe with an octet before the request",
        *(*CONNECTED, Sends("A", b"\0", seq=0), LISTEN, ASK, LISTEN),
    ),
    Script("keep-alive probe inside the request", *BEGUN, Sends("A", seq=SENT - 1), LISTEN, REST, LISTEN),
    Script("keep-alive probe after the answer", *ANSWERED, Sends("A", seq=SENT - 1), LISTEN, families=BOTH),
    Script("keep-alive probe with an octet after the answer", *ANSWERED, Sends("A", GET[-1:], seq=SENT - 1), LISTEN),
    Script("request that closes the window, which opens later", *CONNECTED, SHUT, LISTEN, ACK, LISTEN),
    Script(
        "request that closes the window, and a probe of it",
        *(*CONNECTED, SHUT, Listens(replies=2), Sends("A", window=0), LISTEN, ACK, LISTEN),
    ),
)

SCRIPTS = (*_PIECES, *_MORE, *_STRANGE, *_PROBES)
