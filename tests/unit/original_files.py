"""The example files of TCPHA-0.3, and a way to load a text as if it were a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tcpha.config import BackEndConfig, FrontEndConfig, NodeConfig, load_back_end, load_front_end
from tcpha.errors import ConfigError

ORIGINAL_FE = """\
# the example of the TCPHA-0.3 README, put together from its text
raddr = 192.168.1.23
vaddr = 192.168.1.36
server = 192.168.1.33 666
server = 192.168.1.38 666
rule = 192.168.1.38 jpg$
rule = 192.168.1.33 .*
"""

ORIGINAL_BE = """\
# the example of the TCPHA-0.3 README for the real server 192.168.1.33, put together from its text
raddr = 192.168.1.33
uaddr = 192.168.1.39
vaddr = 192.168.1.36
fe = 192.168.1.23 666
server = 192.168.1.33 666
server = 192.168.1.38 666
rule = 192.168.1.38 jpg$
rule = 192.168.1.33 .*
"""

# Both end before the line that a test adds: line 8 of the front end's file, line 10 of the back end's.
FE_NEXT = 8
BE_NEXT = 10


class Files:
    """Writes a text as a file and loads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tcpha.conf"

    def fe(self, text: str | bytes) -> FrontEndConfig:
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_front_end(self.path)

    def be(self, text: str | bytes) -> BackEndConfig:
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_back_end(self.path)

    def fault(self, load: Callable[[str | bytes], NodeConfig], text: str | bytes) -> tuple[int | None, str]:
        with pytest.raises(ConfigError) as raised:
            load(text)
        assert raised.value.file == self.path
        assert str(raised.value).startswith(f"{self.path}:")
        assert "\n" not in str(raised.value)
        return raised.value.line, raised.value.reason
