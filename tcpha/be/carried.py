"""Connections of the programs' as the agent deals with them one by one: their sockets found, and they themselves ended.

Whatever is done is done to the connection that is meant: the programs compare its numbers (`Act`), and a socket is
destroyed by its cookie. docs/kernel.md, "Two executors, one order".
"""

from __future__ import annotations

import logging

from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import Act, Carried, Whose, encode_tuple
from tcpha.net.bpf_adopter import Adopter
from tcpha.net.sockdiag import TCP_TIME_WAIT, SocketDiagnostics, TcpSocket
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Identity

TRIES = 8
"""Of an order that nobody gives once more, where a program changes the same entry at this moment."""

log = logging.getLogger("tcpha.be")


class CarriedConnections:
    """What can be done with each. All calls but `destroy` raise EdgeError where the kernel does not answer."""

    def __init__(self, adopter: Adopter, sockets: SocketDiagnostics, mark: int) -> None:
        """`mark`: what their sockets bear."""
        self._adopter = adopter
        self._sockets = sockets
        self._mark = mark

    def find_socket(self, key: ConnectionKey) -> TcpSocket | None:
        """The socket of a four-tuple if it is one that the programs made: in TIME-WAIT, too, it bears the mark."""
        found = self._sockets.find_connection(key)
        return found if found is not None and found.mark == self._mark else None

    def has_open_socket(self, key: ConnectionKey) -> bool:
        """The same, and not in TIME-WAIT."""
        found = self.find_socket(key)
        return found is not None and found.state != TCP_TIME_WAIT

    def open_sockets(self) -> list[TcpSocket]:
        """Every one that bears the mark, and is not in TIME-WAIT."""
        return self._sockets.marked(self._mark)

    def destroy(self, socket: TcpSocket) -> bool:
        """Make a socket disappear, as far as the kernel lets us; is it gone? The log says why it is not."""
        try:
            return self._sockets.destroy(socket)
        except EdgeError as error:
            log.warning("%s", error)
            return False

    def end_silently(self, carried: Carried) -> None:
        """End a connection of the programs without a word to its client, unless it is another one by now."""
        identity = carried.identity
        if not self._insist(Act.SILENCE, identity):
            return
        socket = self.find_socket(identity.key)
        if socket is not None and carried.cookie in (socket.cookie, bytes(8)):
            self.destroy(socket)
        self._insist(Act.END, identity)

    def _insist(self, act: Act, identity: Identity) -> bool:
        """Order it until it is done, or the four-tuple has no such connection any more; was it done?"""
        four_tuple = encode_tuple(identity.key)
        for _ in range(TRIES):
            if self._adopter.order(act, identity):
                return True
            known = self._adopter.look_up(four_tuple)
            if known is None or known.identity != identity or known.whose not in (Whose.UNSEEN, Whose.PROGRAMS):
                return False
        return False

    def give_up(self, carried: Carried) -> None:
        """Nothing is there: it is over, or the four-tuple is nobody's."""
        if carried.whose is Whose.AGENT:
            self._adopter.order(Act.RELEASE, carried.identity)
        elif carried.whose is Whose.UNSEEN:
            self._adopter.order(Act.FORGET, carried.identity)
        elif carried.lives:
            self._adopter.order(Act.END, carried.identity)
