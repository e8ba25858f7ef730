"""A server of the lab that runs in a thread of the tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tcpha.lab.unix_server import UnixServer


@contextmanager
def serving(server: UnixServer) -> Iterator[None]:
    """Serve meanwhile."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
