"""How the commands of bench read their words: a fault of usage is one line, status 2. Must not know any command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says a fault of usage in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message} (more: {self.prog} -h)\n")


def up_to(most: int) -> Callable[[str], int]:
    """Reader of an option's value: a whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[: len(str(most)) + 1]) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
        return int(text)

    return read
