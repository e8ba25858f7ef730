"""One target under libFuzzer, by way of atheris: `python -m tests.fuzz.engine PROGRAM TARGET LIBFUZZER-ARGUMENT...`

PROGRAM is what libFuzzer calls to run this again (it merges corpora in processes of its own). libFuzzer ends this one.
"""

from __future__ import annotations

import sys

import atheris

from tests.fuzz.records import mutate
from tests.fuzz.targets import TARGETS


def main() -> None:
    program, name, *arguments = sys.argv[1:]
    target = TARGETS[name]
    # What the package does with the octets guides the search; what the tests and other packages do does not.
    with atheris.instrument_imports(include=["tcpha"], enable_loader_override=False):
        function = target.load()

    def mutator(octets: bytes, max_octets: int, seed: int) -> bytes:
        return mutate(octets, max_octets, seed, atheris.Mutate)

    more = {"custom_mutator": mutator} if target.is_program else {}
    atheris.Setup([program, *arguments], function, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
