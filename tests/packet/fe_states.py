"""docs/states-fe.md: the front end's table of states and stimuli, written by playing every cell.

`python -m tests.packet.fe_states` writes the file again; a test compares it, so it cannot go stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from scapy.layers.inet import TCP

from tcpha.fe.actions import Action, Forward, LeaveToHost, PassOn, Reply, Send
from tcpha.fe.flows import FlowState
from tcpha.proto.messages import Adopted, Closed, Flows, FlowsQuery, Handoff, Reason, Refused
from tcpha.proto.seqnum import seq_add
from tests.packet.fe_client import GET, Client, dissect
from tests.packet.fe_playbook import BE1, After, Playbook, Says, anything, lives, nothing

FILE = Path(__file__).parents[2] / "docs" / "states-fe.md"
BAD = b"\r\r\r\r"
"""No HTTP: answered 400."""


def _reading(book: Playbook, client: Client) -> None:
    book >> client.sends(GET[:9]) << nothing


def _handing(book: Playbook, client: Client) -> None:
    book.handing(client)


def _forwarded(book: Playbook, client: Client) -> None:
    book.adopted(client)


def _answered(book: Playbook, client: Client) -> None:
    book >> client.sends(BAD) << anything


def _finished(book: Playbook, client: Client) -> None:
    book.adopted(client)
    book >> Says(BE1, Closed((client.identity,))) << nothing


BRING_TO: dict[FlowState, Callable[[Playbook, Client], None]] = {
    FlowState.READING: _reading,
    FlowState.HANDING: _handing,
    FlowState.FORWARDED: _forwarded,
    FlowState.ANSWERED: _answered,
    FlowState.FINISHED: _finished,
}
"""How a client whose handshake is done comes into each state."""

SENT = {
    None: 0,
    FlowState.READING: 9,
    FlowState.HANDING: len(GET),
    FlowState.FORWARDED: len(GET),
    FlowState.ANSWERED: len(BAD),
    FlowState.FINISHED: len(GET),
}
"""Octets the client has sent in each state."""

State = FlowState | None
Cell = Callable[[Playbook, Client, State], object]


def _first(state: State) -> bytes:
    return BAD if state is FlowState.ANSWERED else GET[:9] if state is FlowState.READING else GET


def _reuse(book: Playbook, client: Client, state: State) -> None:
    new = book.client(irs=4_000_000_000)
    book >> new.syn() << anything
    book >> new.sends(GET)


SEGMENTS: dict[str, Cell] = {
    "SYN": lambda book, client, _: book >> client.syn(seq=7),
    "SYN with ACK, FIN or RST": lambda book, client, _: book >> client.syn(flags="SA"),
    "ACK, the next number": lambda book, client, state: book >> client.ack(SENT[state]),
    "keep-alive probe": lambda book, client, state: book >> client.ack(SENT[state] - 1),
    "the first octets (again)": lambda book, client, state: book >> client.sends(_first(state)),
    "the next octets": lambda book, client, state: book >> client.sends(GET[9:], SENT[state]),
    "octets behind a gap": lambda book, client, state: book >> client.sends(b"late", SENT[state] + 99),
    "FIN, the next number": lambda book, client, state: book >> client.fin(SENT[state]),
    "RST, the next number": lambda book, client, state: book >> client.rst(SENT[state]),
    "RST inside the window": lambda book, client, state: book >> client.rst(SENT[state] + 99),
    "ACK of octets never sent": lambda book, client, state: book >> client.ack(SENT[state], 5000),
    "first octets behind a new SYN (port reused)": _reuse,
    "ICMP error about a packet to the client": lambda book, client, _: book >> client.icmp_error(),
}
MESSAGES: dict[str, Cell] = {
    "ADOPTED": lambda book, client, _: (
        book >> Says(BE1, Adopted(client.identity, seq_add(client.identity.irs, 1 + len(GET))))
    ),
    "REFUSED": lambda book, client, _: book >> Says(BE1, Refused(client.identity, Reason.BACKLOG_FULL)),
    "CLOSED": lambda book, client, _: book >> Says(BE1, Closed((client.identity,))),
    "FLOWS: held": lambda book, client, _: book >> Says(BE1, Flows((client.identity,))),
    "FLOWS: absent, unasked": lambda book, client, _: book >> Says(BE1, Flows((), (client.key,))),
    "STATUS of a new process": lambda book, client, _: book >> lives(BE1, restarted=True),
}
TIMES: dict[str, Cell] = {
    "0.05 s": lambda book, client, _: book >> After(0.05),
    "0.25 s": lambda book, client, _: book >> After(0.25),
    "1 s": lambda book, client, _: book >> After(1),
    "10 s": lambda book, client, _: book >> After(10),
    "61 s": lambda book, client, _: book >> After(61),
}


def _words(action: Action) -> str:
    match action:
        case PassOn():
            return "passed on"
        case LeaveToHost():
            return "left to the host"
        case Forward():
            return "given to the back end"
        case Send(_, Handoff()):
            return "HANDOFF"
        case Send(_, Closed()):
            return "CLOSED"
        case Send(_, FlowsQuery()):
            return "FLOWS?"
        case Reply(packet):
            tcp = dissect(packet)[TCP]
            names = {"SA": "SYN-ACK", "A": "ACK", "R": "RST", "RA": "RST", "FA": "FIN"}
            return names.get(str(tcp.flags), "answer with FIN")
        case _:
            return ""


def play(state: State, cell: Cell) -> str:
    """Say what comes of a stimulus in a state (None: no flow): the actions, then the new state if it is another."""
    book = Playbook()
    client = book.connected()
    if state is not None:
        BRING_TO[state](book, client)
    cell(book, client, state)
    words = [text for text in dict.fromkeys(map(_words, book.actions)) if text]
    after = book.flow(client).state if book.knows(client) else None
    if after is not state or (book.knows(client) and book.flow(client).identity != client.identity):
        words.append(f"→ {after.name if after else 'no flow'}")
    return ", ".join(words) or "-"


def _table(title: str, cells: dict[str, Cell]) -> Iterator[str]:
    states: list[State] = [None, *FlowState]
    yield f"| {title} | " + " | ".join(state.name if state else "no flow" for state in states) + " |"
    yield "|---" * (len(states) + 1) + "|"
    for name, cell in cells.items():
        yield f"| {name} | " + " | ".join(play(state, cell) for state in states) + " |"
    yield ""


def render() -> str:
    """Return the document."""
    lines = ["# Front end", "", *INTRODUCTION.splitlines(), ""]
    lines += ["## Segments", "", *_table("segment", SEGMENTS)]
    lines += ["## Messages from the back end that holds the flow", "", *_table("message", MESSAGES)]
    lines += ["## Time", "", TIME, "", *_table("after", TIMES)]
    return "\n".join(lines)


INTRODUCTION = """\
What `tcpha.fe.dispatcher` does with each stimulus in each state of a flow, all limits at their defaults and nothing
lost before. "No flow": the handshake is done, and nobody has stored anything. `-`: nothing is sent and nothing
changes; "passed on": the packet goes to the back end unchanged.

    READING -> HANDING -> FORWARDED -> FINISHED        READING | HANDING -> ANSWERED -> FINISHED

The tables are written by playing every cell: `python -m tests.packet.fe_states`."""
TIME = (
    "What was sent, in the order of its first appearance, and the state then; the back end and the client are silent."
)

if __name__ == "__main__":
    FILE.write_text(render())
