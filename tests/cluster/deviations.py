"""In what a connection to the virtual address differs from one to a Linux server: every difference, and why it is so.

`python -m tests.cluster.deviations` writes docs/deviations.md from this table and from the words `Deviation:` in the
code, where the reasons stand; a test compares the document, so it cannot go stale. That the table is right, no line too
few and none too many, is what test_differential.py finds out from the kernel.

A difference is told as `wire_transcript.Difference` prints it; `*` stands for anything. `~` before it: not each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from tests.cluster import scripts_close, scripts_path, scripts_request, scripts_syn
from tests.cluster.wire_script import Script

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tcpha"
DOCUMENT = ROOT / "docs" / "deviations.md"

SCRIPTS: tuple[Script, ...] = (
    *scripts_syn.SCRIPTS,
    *scripts_request.SCRIPTS,
    *scripts_close.SCRIPTS,
    *scripts_path.SCRIPTS,
)
EVERYWHERE = "*"
"""In place of a script's name: wherever it occurs, and it must occur."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What the code says after `Deviation:`."""

    module: str
    """Path of the file, from the repository's root."""
    text: str


@dataclass(frozen=True, slots=True)
class Deviation:
    """Differences with one reason."""

    begins: str
    """How the statement in the code begins."""
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Differences by the name of the script that shows them."""


_NOT_ANSWERED = ("3 missing: A *", "3 missing: at the end *")
_CHALLENGE = ("4 missing: A *", "4 missing: at the end *")
_SERVED = ("4 additional: PA *", "4 additional: at the end *")

DEVIATIONS = (
    Deviation(
        "the clock of the timestamps stands still",
        {EVERYWHERE: ("* at the end tsval: later -> stands", "* SA tsval: later -> stands")},
    ),
    Deviation("the window scale is that of the configuration", {EVERYWHERE: ("* SA wscale: * -> 7",)}),
    Deviation("what the front end itself sends over IPv6", {EVERYWHERE: ("* flow label: some -> 0",)}),
    Deviation(
        "the client's MSS is rounded down",
        {
            "SYN with MSS 64": ("2 missing: *A *", "2 additional: *A *"),
            "SYN with MSS 1000": ("2 A payload: 988 octets *", "2 PA seq: *", "2 PA payload: *"),
        },
    ),
    Deviation(
        "ECN is declined",
        {"SYN that asks for ECN": ("1 missing: SAE *", "1 additional: SA *", "2 PA tos: 2 -> 0")},
    ),
    Deviation(
        "a segment with an option of impossible length is dropped",
        {
            "SYN with an option of impossible length": ("1 missing: SA *",)
        },
    ),
    Deviation(
        "a SYN-ACK that a client sends is dropped",
        {
            "SYN with ACK": ("1 missing: R *",),
            "SYN-ACK of no connection": ("1 missing: R *",),
            "SYN-ACK inside the connection": _CHALLENGE,
        },
    ),
    Deviation(
        "each SYN is answered with a SYN-ACK",
        {
            "SYN repeated": ("2 SA tsecr: 0 -> 1",),
            "SYN repeated with another number": (
                "2 missing: RA *", "2 additional: SA *", "3 missing: R *", "3 additional: PA *",
                "3 additional: at the end *",
            ),
            "SYN inside the connection before the request": (*_NOT_ANSWERED, "3 additional: SA *"),
            "SYN inside the connection after the answer": (*_CHALLENGE, "4 additional: SA *"),
            "SYN of the connection itself after the answer": (*_CHALLENGE, "4 additional: SA *"),
            "port used again while the server's FIN waits": (
                "3 missing: at the end *", "~3 missing: A *", "3 additional: SA *", "~4 missing: A *",
                "4 additional: PA *", "4 at the end ack: -499949 -> 32", "4 at the end tsecr: *",
            ),
        },
    ),
    Deviation("a SYN-ACK is not repeated", {"SYN-ACK not acknowledged": ("2 missing: SA *",)}),
    Deviation("an RST before the request is not remembered", {"RST before the request": ("4 missing: R *", *_SERVED)}),
    Deviation(
        "what belongs to no connection is answered with an RST",
        {
            "handshake's ACK of a wrong number with the request": ("2 missing: R *",),
            "RST inside the request": ("5 missing: R *",),
            "data of no connection": ("1 missing: R *",),
            "FIN of no connection": ("1 missing: R *",),
        },
    ),
    Deviation(
        "before the request, only a segment that begins at IRS + 1",
        {
            "request's second segment first": (
                "3 missing: A *", "3 missing: PA *", "3 at the end ack: 32 -> 11", "4 missing: A *",
                "4 additional: PA *",
            ),
            "request's second segment alone, then all": (
                *_NOT_ANSWERED, "4 missing: PA *", "4 at the end ack: 32 -> 11", "5 missing: A *",
                "5 additional: PA *",
            ),
            "request of another number than the next": (
                *_NOT_ANSWERED, "4 missing: A *", "4 PA options: *", "4 PA sack: *",
            ),
            "request far beyond the window": _NOT_ANSWERED,
            "request that acknowledges what was never sent": _NOT_ANSWERED,
            "RST inside the window before the request": _NOT_ANSWERED,
        },
    ),
    Deviation(
        "a client that agreed on timestamps and then leaves them out",
        {
            "request without timestamps though agreed": (
                "2 PA options: nop nop timestamp -> none", "2 at the end tsecr: 0 -> none",
                "2 at the end tsval: later -> none",
            )
        },
    ),
    Deviation(
        "a keep-alive probe is answered with its own timestamp",
        {
            "keep-alive probe before the request": ("3 A tsecr: 1 -> 2", "3 at the end tsecr: 1 -> 2"),
            "keep-alive probe with an octet before the request": ("3 A options: *", "3 A sack: 0-1 -> none"),
        },
    ),
    Deviation(
        "a FIN before the request is answered with our FIN",
        {"FIN before any request, repeated": ("4 missing: A *", "4 additional: FA *")},
    ),
    Deviation(
        "the server gets a head that came in several segments as one",
        {
            "request in two segments": ("~3 at the end tsecr: 3 -> 2",),
            "request in three segments": ("~3 at the end tsecr: 4 -> 2",),
            "request octet by octet": ("~3 at the end tsecr: *",),
            "request of 5 KB in many segments": ("~3 at the end tsecr: *",),
        },
    ),
    Deviation(
        "while a head is read the window's right edge stays",
        {
            "request of 5 KB in many segments": ("3 at the end window: *",),
            "request of 5 KB in many segments with pauses": ("8 at the end window: *",),
            "request of many segments, the second lost": ("4 at the end window: *",),
        },
    ),
    Deviation("what overlaps is put together here", {"request in overlapping segments": ("4 missing: A *",)}),
    Deviation("an urgent pointer is ignored", {"request with an urgent octet": ("3 additional: PA *",)}),
    Deviation(
        "the window of its answers is 65535",
        {
            "FIN inside the request": ("3 at the end window: 65536 -> 8388480",),
            "FIN behind a piece of the request": ("4 at the end window: 65536 -> 8388480",),
        },
    ),
    Deviation(
        "IPv4 options and IPv6 extension headers are refused",
        {
            "SYN with IP options": ("1 missing: SA *",),
            "SYN that records its route": ("1 missing: SA *",),
            "data with IP options after the answer": ("4 missing: PA *", "4 missing: at the end *"),
            "SYN with an extension header": ("1 missing: SA *",),
            "data with an extension header after the answer": ("4 missing: PA *", "4 missing: at the end *"),
        },
    ),
    Deviation(
        "fragments are refused",
        {
            "request in IP fragments": ("3 missing: PA *", "3 missing: at the end *"),
            "data in IP fragments after the answer": ("4 missing: PA *", "4 missing: at the end *"),
        },
    ),
    Deviation(
        "a RST of the front end is of the default service class",
        {"ACK of no connection of a service class": ("1 R tos: 136 -> 0",)},
    ),
    Deviation(
        "the duplicate SACK that answers a first segment which came again",
        {
            "request twice at once": ("~3 A sack: 1-* -> 5-*",),  # HANDOFF and repetition may arrive in either order
            "request repeated after its answer": ("4 A sack: 1-* -> 5-*",),
        },
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the table says of the differences of one script."""

    unknown: tuple[str, ...]
    """No line of the table knows them."""
    absent: tuple[str, ...]
    """The table says they occur."""


def judge(script: str, differences: list[str]) -> Judgement:
    """Hold what one script has shown against the table."""
    own = [line for each in DEVIATIONS for line in each.seen.get(script, ())]
    known = [line.lstrip("~") for line in (*own, *everywhere())]
    unknown = [found for found in differences if not any(fnmatchcase(found, line) for line in known)]
    absent = [line for line in own if line[0] != "~" and not any(fnmatchcase(found, line) for found in differences)]
    return Judgement(tuple(unknown), tuple(absent))


def everywhere() -> list[str]:
    """Differences that belong to no script of their own."""
    return [line for each in DEVIATIONS for line in each.seen.get(EVERYWHERE, ())]


# --- the document

_HEAD = """\
# Deviations

In what a connection to the virtual address differs from one to a Linux server, and why. Where the reason is said, in
the code, it begins with `Deviation:`.

The table is measured: {count} scripts, each a client that sends packets of its own making, are played to a back end's
own address, where Linux and nginx answer by themselves, and to the virtual address of the same lab, whose front end and
back end agent stand before that same nginx (`accelerate = off`; in what the kernel's programs differ from that,
docs/kernel.md says). Both transcripts are compared field by field. A difference that is not
listed here fails `tests/cluster/test_differential.py`, and so does one that is listed and does not occur; what is
compared how, `tests/cluster/wire_transcript.py` says. Written by `python -m tests.cluster.deviations`.

## Measured
"""
_COLUMNS = "\n| deviation | stated in | seen in |\n| --- | --- | --- |\n"
_SCRIPTS = """
## Script by script

Numbers before the differences count the moments at which the client stops to listen. `missing`: Linux says it, the
virtual address does not; `additional`: the other way round. `*` stands for anything, `~` for what does not happen each
time. What occurs in scripts of all kinds:

{everywhere}

| script | over | differences |
| --- | --- | --- |
"""
_ELSEWHERE = """
## Stated elsewhere

What these scripts cannot see, or what has nothing to do with Linux.

| deviation | stated in |
| --- | --- |
"""


@cache
def statements() -> tuple[Statement, ...]:
    """Every `Deviation:` of the package but the lab's, in the order of files and lines."""
    found = []
    for file in (each for each in sorted(PACKAGE.rglob("*.py")) if each.parent.name != "lab"):
        lines = [line.strip() for line in file.read_text().splitlines()]
        for number, line in enumerate(lines):
            if line.removeprefix("# ").startswith("Deviation: "):
                text = " ".join(_paragraph(lines[number:])).removeprefix("Deviation: ")
                found.append(Statement(str(file.relative_to(ROOT)), text))
    return tuple(found)


def _paragraph(lines: list[str]) -> Iterator[str]:
    """The lines of a statement that begins with the first of them."""
    is_comment = lines[0].startswith("#")
    for number, line in enumerate(lines):
        text = line.removeprefix("# ")
        ends = not text or text.startswith('"""') or (number > 0 and text.startswith("Deviation: "))
        if ends or line.startswith("#") != is_comment:
            return
        yield text.removesuffix('"""')


def statement_of(deviation: Deviation) -> Statement:
    """The one statement of the code that is meant. Raises ValueError if there is none, or several."""
    (found,) = (each for each in statements() if each.text.startswith(deviation.begins))
    return found


def document() -> str:
    """Text of docs/deviations.md."""
    measured = [(each, statement_of(each)) for each in DEVIATIONS]
    rows = [f"| {_cell(said.text)} | {said.module} | {_names(each)} |" for each, said in measured]
    names = ", ".join(f"`{line}`" for line in everywhere())
    elsewhere = [each for each in statements() if each not in [said for _, said in measured]]
    parts = [
        _HEAD.format(count=len(SCRIPTS)), _COLUMNS, *(f"{row}\n" for row in rows),
        _SCRIPTS.format(everywhere=names), *(f"{_script_row(each)}\n" for each in SCRIPTS),
        _ELSEWHERE, *(f"| {_cell(each.text)} | {each.module} |\n" for each in elsewhere),
    ]  # fmt: skip
    return "".join(parts)


def _cell(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text.replace("|", "\\|")


def _names(deviation: Deviation) -> str:
    names = ("scripts of all kinds" if name == EVERYWHERE else name for name in deviation.seen)
    return "; ".join(names)


def _script_row(script: Script) -> str:
    lines = [line for each in DEVIATIONS for line in each.seen.get(script.name, ())]
    over = " and ".join({"ipv4": "IPv4", "ipv6": "IPv6"}[family] for family in script.families)
    return f"| {script.name} | {over} | {', '.join(f'`{line}`' for line in lines) or 'none'} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
