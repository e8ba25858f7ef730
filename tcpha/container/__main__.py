"""The entry point of the container: ``python -m tcpha.container fe`` or ``be [SERVER [ARGUMENT...]]``.

Signals are blocked before anything else is imported, which takes a third of a second: to a process 1 that neither
blocks nor catches a signal the kernel does not deliver it, and a wish to stop would be lost (pid_namespaces(7)).
"""

from __future__ import annotations

import signal
import sys

from tcpha.container.signals import WAITED_FOR

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    from tcpha.container.command import main

    sys.exit(main())
