"""Scripts of the end: FIN and RST from either side, strangers' segments, and ports that are used again."""

from __future__ import annotations

from tests.cluster.scripts import (
    ACK,
    ANSWERED,
    ASK,
    ASK_AND_CLOSE,
    ASKED,
    CONNECTED,
    FIN,
    GET,
    ONE_REPLY,
    RST,
    SYN,
    piece,
    syn,
)
from tests.cluster.wire_script import BOTH, HEARD, LINUX, LISTEN, SENT, Script, Sends

BEGUN = (*CONNECTED, piece(0, 10), LISTEN)
REST = piece(10, len(GET))
SERVER_CLOSED = (SYN, LISTEN, ACK, ASK_AND_CLOSE, LISTEN)
TIME_WAIT = (*SERVER_CLOSED, ACK, LISTEN, FIN, LISTEN)
ASKED_THEN = (LISTEN, ASK, LISTEN)
INSIDE = Sends("R", seq=SENT + 100)
OUTSIDE = Sends("R", seq=SENT + 1_000_000)
STRANGE_SYN = Sends("S", seq=SENT + 100, options=LINUX)


def _stranger(flags: str, payload: bytes = b"") -> Sends:
    return Sends(flags, payload, seq=1000, ack=2000)


_FINS = (
    Script("FIN with the request", *CONNECTED, Sends("FPA", GET), LISTEN, ACK, LISTEN, families=BOTH),
    Script("FIN right behind the request", *CONNECTED, ASK, FIN, LISTEN, ACK, LISTEN),
    Script("FIN before any request", *CONNECTED, FIN, LISTEN, ACK, LISTEN, families=BOTH),
    Script(
        "FIN before any request, repeated",
        *(*CONNECTED, FIN, LISTEN, Sends("FA", seq=1, ack=1), ONE_REPLY, ACK, LISTEN),
    ),
    Script("FIN inside the request", *CONNECTED, Sends("FPA", GET[:10]), LISTEN, ACK, LISTEN),
    Script("FIN behind a piece of the request", *BEGUN, FIN, LISTEN, ACK, LISTEN),
    Script("FIN after the answer", *ANSWERED, FIN, LISTEN, ACK, LISTEN, families=BOTH),
    Script("FIN with the acknowledgement of the answer", *ASKED, FIN, LISTEN, ACK, LISTEN),
    Script("FIN repeated", *ANSWERED, FIN, LISTEN, Sends("FA", seq=SENT - 1), LISTEN),
    Script("server closes, client follows", *TIME_WAIT, families=BOTH),
    Script("server closes, client follows at once", *SERVER_CLOSED, FIN, LISTEN),
    Script(
        "both close at the same time",
        *(*SERVER_CLOSED, Sends("FA", ack=HEARD - 1), LISTEN, ACK, LISTEN),
        families=BOTH,
    ),
    Script("FIN repeated after both have closed", *TIME_WAIT, Sends("FA", seq=SENT - 1), LISTEN, families=BOTH),
    Script("data after both have closed", *TIME_WAIT, Sends("PA", GET), LISTEN),
    Script("data after the server has closed", *SERVER_CLOSED, ACK, LISTEN, Sends("PA", GET), LISTEN, families=BOTH),
    Script("data after the client's own FIN", *ANSWERED, FIN, LISTEN, Sends("PA", GET), LISTEN),
)

_RESETS = (
    Script("RST before the request", *CONNECTED, RST, *ASKED_THEN),
    Script("RST inside the window before the request", *CONNECTED, INSIDE, *ASKED_THEN),
    Script("RST outside the window before the request", *CONNECTED, OUTSIDE, *ASKED_THEN),
    Script("RST inside the request", *BEGUN, RST, LISTEN, REST, LISTEN),
    Script("RST inside the window inside the request", *BEGUN, INSIDE, LISTEN, REST, LISTEN),
    Script("RST after the answer", *ANSWERED, RST, *ASKED_THEN, families=BOTH),
    Script("RST inside the window after the answer", *ANSWERED, INSIDE, *ASKED_THEN, families=BOTH),
    Script("RST outside the window after the answer", *ANSWERED, OUTSIDE, *ASKED_THEN),
    Script("RST of the number before after the answer", *ANSWERED, Sends("R", seq=SENT - 1), *ASKED_THEN),
)

_STRANGERS = (
    Script("SYN inside the connection before the request", *CONNECTED, STRANGE_SYN, *ASKED_THEN),
    Script("SYN inside the connection after the answer", *ANSWERED, STRANGE_SYN, *ASKED_THEN, families=BOTH),
    Script("SYN of the connection itself after the answer", *ANSWERED, syn(seq=0), *ASKED_THEN),
    Script("SYN-ACK inside the connection", *ANSWERED, Sends("SA"), *ASKED_THEN),
    Script("segment without ACK inside the connection", *ANSWERED, Sends("P", GET), *ASKED_THEN),
    Script("ACK of no connection", _stranger("A"), ONE_REPLY, families=BOTH),
    Script("data of no connection", _stranger("PA", b"GET / HT"), LISTEN, families=BOTH),
    Script("FIN of no connection", _stranger("FA"), LISTEN),
    Script("FIN without ACK of no connection", _stranger("F"), LISTEN),
    Script("data without ACK of no connection", _stranger("P", b"GET / HT"), LISTEN),
    Script("RST of no connection", _stranger("R"), LISTEN),
    Script("RST with ACK of no connection", _stranger("RA"), LISTEN),
    Script("SYN-ACK of no connection", _stranger("SA"), LISTEN),
)

_PORTS = (
    Script(
        "port used again, a higher number",
        *(*TIME_WAIT, syn(isn_offset=500_000), LISTEN, ACK, *ASKED_THEN[1:]),
        families=BOTH,
    ),
    Script("port used again, a lower number", *TIME_WAIT, syn(isn_offset=-500_000), LISTEN, ACK, *ASKED_THEN[1:]),
    Script("port used again after RST", *ANSWERED, RST, syn(isn_offset=500_000), LISTEN, ACK, *ASKED_THEN[1:]),
    Script(
        "port used again while the server's FIN waits",
        *(*SERVER_CLOSED, syn(isn_offset=500_000), LISTEN, ACK, *ASKED_THEN[1:]),
    ),
)

SCRIPTS = (*_FINS, *_RESETS, *_STRANGERS, *_PORTS)
