"""docs/states-be.md: what the back end does with each kind of packet in each state, asked from the code itself.

python -m tests.packet.be_states      write the table in docs/states-be.md again
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tcpha.proto.messages import Closed, Flows, FlowsQuery, Reason, Refused
from tests.packet.be_playbook import IRS, PERIOD, REQUEST, TSVAL_SENT, Event, Playbook

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "states-be.md"
BEGIN, END = "<!-- table: tests/packet/be_states.py -->\n", "<!-- end of table -->\n"

_START: dict[str, Callable[[], Playbook]] = {
    "no flow": Playbook,
    "SYN_SENT": lambda: _after(Playbook(), lambda book: book.hands_off()),
    "ACK_SENT": lambda: Playbook().until_ack_sent(),
    "ADOPTED": lambda: Playbook().until_adopted(),
    "FINISHED": lambda: Playbook().until_finished(),
}
STATES = tuple(_START)

STIMULI: dict[str, Callable[[Playbook], list[Event]]] = {
    "client: SYN": lambda book: book.arrives("S", seq=70_000),
    "client: ACK, octets": lambda book: book.arrives("PA", payload=b"x"),
    "client: its first octets again": lambda book: book.arrives("PA", seq=1, payload=REQUEST),
    "client: FIN": lambda book: book.arrives("FA"),
    "client: RST": lambda book: book.arrives("R", options=[]),
    "client: octets of the next connection": lambda book: book.arrives("PA", seq=500_001, ack=9, payload=b"x"),
    "server: SYN-ACK": lambda book: book.one_syn_ack(),
    "server: SYN-ACK again": lambda book: book.syn_ack(),
    "server: SYN-ACK of another socket": lambda book: book.syn_ack(seq=9999),
    "server: ACK of the request": lambda book: book.leaves(),
    "server: ACK of something else": lambda book: book.leaves(seq=1 << 30, ack=1 << 30),
    "server: FIN": lambda book: book.leaves("FA"),
    "server: RST, ACK of the SYN": lambda book: book.leaves("RA", seq=0, ack=1, options=[]),
    "server: RST, ACK of the request": lambda book: book.leaves("RA", options=[]),
    "server: RST without ACK": lambda book: book.leaves("R", options=[]),
    "router: ICMP error about a packet to the client": lambda book: book.errs(),
    "HANDOFF of this identity": lambda book: book.hands_off(),
    "HANDOFF of the next connection": lambda book: _next_handoff(book, PERIOD),
    "HANDOFF of an older period": lambda book: _next_handoff(book, PERIOD - 1),
    "CLOSED from the front end": lambda book: book.says(Closed((book.identity(),))),
    "FLOWS? for its four-tuple": lambda book: book.says(FlowsQuery((book.key(),))),
    "0.4 s of silence": lambda book: book.passes(0.4),
}


def _after(book: Playbook, do: Callable[[Playbook], object]) -> Playbook:
    do(book)
    return book


def _next_handoff(book: Playbook, period: int) -> list[Event]:
    identity = book.identity(irs=IRS + 500_000, iss=77)
    return book.hands_off(identity=identity, period=period & 0xFFFF, tsval_sent=TSVAL_SENT)


def outcome(state: str, stimulus: str) -> str:
    """What one stimulus does in one state: the actions in words, and the state it leads to."""
    book = _START[state]()
    held, expired = book.agent.counters.held, book.agent.counters.hold_expired
    events = STIMULI[stimulus](book)
    words = [_word(event) for event in events]
    if book.agent.counters.held > held and book.agent.counters.hold_expired == expired:
        words.append("held")
    told = [word for number, word in enumerate(words) if word not in words[:number]]
    if not told:
        told = ["-"] if stimulus.startswith("0.4") else ["dropped"] if ":" in stimulus else ["-"]
    after = _state(book)
    return ", ".join(told) + ("" if after == state else f" → {after}")


def _state(book: Playbook) -> str:
    flow = book.agent.table.by_key.get(book.key())
    return "no flow" if flow is None else flow.state.name


def _word(event: Event) -> str:
    if event.what == "inject":
        if event.fields["seq"] == 5:
            return "play the request without its first octets"
        return {"S": "play SYN", "R": "play RST", "PA": "play the request", "A": "play ACK"}[str(event.fields["flags"])]
    if event.what == "clear":
        return "clear all" if event.fields["embryonic"] else "clear"
    if event.what == "send":
        message = event.fields["message"]
        if isinstance(message, Refused):
            return f"REFUSED ({Reason(message.reason).text})"
        if isinstance(message, Flows):
            return "FLOWS (held)" if message.held else "FLOWS (absent)"
        return type(message).__name__.upper()
    return event.what


def table() -> str:
    """The table in Markdown."""
    lines = ["| | " + " | ".join(STATES) + " |", "|---" * (len(STATES) + 1) + "|"]
    lines += [f"| {each} | " + " | ".join(outcome(state, each) for state in STATES) + " |" for each in STIMULI]
    return "\n".join(lines) + "\n"


def written(document: str) -> str:
    """The document with the table that the code gives."""
    head, rest = document.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
