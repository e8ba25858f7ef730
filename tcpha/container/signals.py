"""Which signals process 1 of a container waits for. Pure, and imports next to nothing: it is needed first of all."""

from __future__ import annotations

import signal
from typing import Final

STOPPING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
FORWARDED: Final = frozenset({signal.SIGHUP, signal.SIGUSR1})
WAITED_FOR: Final = frozenset({*STOPPING, *FORWARDED, signal.SIGCHLD})
