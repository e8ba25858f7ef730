"""What the program that impairs packets (tcpha.lab.impairer) is told, as a value and as its argument. Pure.

Must not know how the program does it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from tcpha.lab.impairment import Impairment


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the program."""

    queue: int
    """Number of the NFQUEUE."""
    ports: dict[str, str]
    """Ports of the switch that lead to the node, each with the node's MAC there, in hexadecimal with colons."""
    impairment: Impairment

    def to_json(self) -> str:
        """As the program's argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The inverse. Raises ValueError, TypeError, KeyError or StartError if it is none."""
        fields = json.loads(text)
        return cls(int(fields["queue"]), dict(fields["ports"]), Impairment(**fields["impairment"]))
