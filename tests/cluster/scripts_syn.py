"""Scripts of the handshake: what a SYN may carry, what may go wrong until the first octet."""

from __future__ import annotations

from tests.cluster.scripts import ACK, ANSWERED, ASK, CONNECTED, GET, GET_ONE_OCTET, ONE_REPLY, SYN, request, syn
from tests.cluster.wire_script import BOTH, HEARD, LINUX, LISTEN, STAMP, Listens, Script, Sends

NOP = ("NOP", None)
MSS = ("MSS", 1460)
SACK = ("SAckOK", b"")
SCALE = ("WScale", 7)
TEN_OCTETS = b"0123456789"


def _with_mss(mss: int) -> Sends:
    return syn((("MSS", mss), *LINUX[1:]))


def _with_scale(scale: int, window: int = 4096) -> Sends:
    return syn((*LINUX[:-1], ("WScale", scale)), window=window)


SCRIPTS = (
    Script("plain request", *ANSWERED, families=BOTH),
    Script("SYN without options", *request(syn(())), families=BOTH),
    Script("SYN without timestamps", *request(syn((MSS, NOP, NOP, SACK, NOP, SCALE))), families=BOTH),
    Script("SYN without SACK", *request(syn((MSS, NOP, NOP, STAMP, NOP, SCALE)))),
    Script("SYN without window scale", *request(syn((MSS, SACK, STAMP)))),
    Script("SYN with timestamps alone", *request(syn((NOP, NOP, STAMP)))),
    Script("SYN with options in another order", *request(syn((SCALE, NOP, STAMP, SACK, MSS)))),
    Script("SYN with window scale 0", *request(_with_scale(0, 65535))),
    Script("SYN with window scale 14", *request(_with_scale(14, 65535)), families=BOTH),
    Script("SYN with window scale 15", *request(_with_scale(15))),
    Script("SYN with MSS 64", *request(_with_mss(64), GET_ONE_OCTET)),
    Script("SYN with MSS 88", *request(_with_mss(88), GET_ONE_OCTET)),
    Script("SYN with MSS 536", *request(_with_mss(536)), families=BOTH),
    Script("SYN with MSS 1000", *request(_with_mss(1000))),
    Script("SYN with MSS 9000", *request(_with_mss(9000)), families=BOTH),
    Script("SYN with unknown options", *request(syn(((253, b"\xf9\x89ab"), MSS, SACK, STAMP, (77, b"xyz"))))),
    Script("SYN with an option of impossible length", syn((), raw_options=b"\x02\x04\x05\xb4\x4d\x00\x00\x00"), LISTEN),
    Script("SYN that asks for a Fast Open cookie", *request(syn((*LINUX, NOP, NOP, (34, b""))))),
    Script(
        "SYN with a Fast Open cookie and data",
        syn((*LINUX, NOP, NOP, (34, b"01234567")), payload=GET),
        LISTEN,
        Sends("A", seq=1),
        Sends("PA", GET, seq=1),
        LISTEN,
    ),
    Script("SYN with data", syn(payload=TEN_OCTETS), LISTEN, Sends("A", seq=1), Sends("PA", GET, seq=1), LISTEN),
    Script("SYN of Multipath TCP", *request(syn((*LINUX, (30, b"\x01\x81"))))),
    Script("SYN that asks for ECN", *request(syn(flags="SEC")), families=BOTH),
    Script("SYN with URG", *request(syn(flags="SU", tcp={"urgptr": 1}))),
    Script("SYN with PSH", *request(syn(flags="SP"))),
    Script("SYN with window 0", *request(syn(window=0))),
    Script("SYN with FIN", syn(flags="SF"), LISTEN),
    Script("SYN with RST", syn(flags="SR"), LISTEN),
    Script("SYN with ACK", syn(flags="SA"), LISTEN, families=BOTH),
    Script("SYN with reserved bits", *request(syn(tcp={"reserved": 7}))),
    Script("no flags", Sends("", b"x"), LISTEN),
    Script("FIN, PSH and URG", Sends("FPU"), LISTEN),
    Script("SYN repeated", SYN, LISTEN, Sends("S", seq=0, options=LINUX), LISTEN, ACK, ASK, LISTEN, families=BOTH),
    Script(
        "SYN repeated with another number", SYN, LISTEN, Sends("S", seq=777, options=LINUX), LISTEN, ACK, ASK, LISTEN
    ),
    Script("SYN-ACK not acknowledged", SYN, LISTEN, Listens(quiet_s=1.4), ACK, ASK, LISTEN),
    Script("handshake's ACK alone", *CONNECTED),
    Script("handshake's ACK repeated", *CONNECTED, ACK, ACK, LISTEN, ASK, LISTEN),
    Script("handshake's ACK of a wrong number", SYN, LISTEN, Sends("A", ack=HEARD + 1000), ONE_REPLY, families=BOTH),
    Script(
        "handshake's ACK of a wrong number with the request", SYN, LISTEN, Sends("PA", GET, ack=HEARD + 1000), LISTEN
    ),
    Script("handshake's ACK with the request", SYN, LISTEN, ASK, LISTEN, ACK, LISTEN, families=BOTH),
    Script("handshake's ACK behind the request", SYN, LISTEN, ASK, Sends("A", seq=1, ack=1), LISTEN, ACK, LISTEN),
    Script("request without timestamps though agreed", SYN, LISTEN, Sends("PA", GET, options=()), LISTEN),
)
