"""What an earlier process of this back end left in the kernel: it goes on, or it is ended.

Connections outlive the process that adopted them, if the programs do that carry them (docs/kernel.md, "The end"). The
sockets of those that no program knows bear the mark all the same: they would speak, and hear nothing any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TypeVar

from tcpha.be.carried import CarriedConnections
from tcpha.config import BackEndConfig
from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import Whose, encode_address, encode_tuple
from tcpha.net import bpf_namespace, bpf_terms, pins
from tcpha.net.bpf_adopter import Adopter
from tcpha.net.bpf_syscall import tried_again
from tcpha.net.sockdiag import SocketDiagnostics, TcpSocket, connection_of
from tcpha.proto.ip import key_addresses
from tcpha.proto.keyring import Keyring

_ROLE = "be"

BegunT = TypeVar("BegunT")

log = logging.getLogger("tcpha.be")


def with_what_is_left(
    config: BackEndConfig, sockets: SocketDiagnostics, begin: Callable[[], BegunT]
) -> BegunT:  # fmt: skip
    """Return what `begin` makes of the programs and what is pinned. Where it cannot, what was left is ended first.

    `begin`: leaves what was pinned as it was where it fails. What may pass is waited for, for a second in all.
    Raises: EdgeError.
    """
    was_pinned = bpf_terms.is_any_pinned(pins.places(_ROLE, config.state))
    try:
        return tried_again(begin)
    except EdgeError as error:
        if was_pinned:
            log.info("what an earlier process pinned cannot go on, and is removed: %s", error)
        tell_ended(end_left_behind(config, sockets), f" ({error})")
    return tried_again(begin)


def tell_ended(count: int, why: str = "") -> None:
    """One line of the log, if there were any."""
    if count:
        log.warning("ended connections that an earlier process let the kernel carry: %d%s", count, why)


def open_adopter(config: BackEndConfig, keyring: Keyring) -> Adopter:
    """Load the programs, with what is pinned. Raises: EdgeError, also if that is of no use."""
    mark = config.kernel_mark
    retry_mark = next(each for each in (mark ^ 1, mark ^ 2, mark ^ 3) if each not in (0, config.mark))
    place = pins.directory(_ROLE, config.state)
    bpf_namespace.remove_left(place)
    return Adopter((config.raddr.packed, config.port), keyring, mark=mark, retry_mark=retry_mark, pins=place)


def end_left_behind(config: BackEndConfig, sockets: SocketDiagnostics) -> int:
    """Remove what an earlier process pinned, and end what it let the kernel adopt; return how many were ended.

    Also where nothing is pinned: pins may be removed while connections live, and `kernel_mark` may have been another.
    Those that the kernel does not end are told of by the log. Raises: EdgeError.
    """
    marks = _marks(config)
    pins.remove(_ROLE, config.state)
    return _end_marked(config, sockets, marks)


def end_connections(config: BackEndConfig) -> int:
    """End them, and return how many, for who takes away what is pinned afterwards. Raises: EdgeError."""
    with closing(SocketDiagnostics()) as sockets:
        return _end_marked(config, sockets, _marks(config))


def _marks(config: BackEndConfig) -> set[int]:
    """What the sockets of an earlier process may bear."""
    marks = {config.kernel_mark}
    for place in pins.places(_ROLE, config.state):
        with suppress(EdgeError):  # where bpf(2) is forbidden nobody knows
            terms = bpf_terms.left(place)
            marks |= set() if terms is None else {terms.mark}
    return marks


def _end_marked(config: BackEndConfig, sockets: SocketDiagnostics, marks: set[int]) -> int:
    return _end([each for mark in sorted(marks) for each in sockets.marked(mark) if is_at(config, each)], sockets)


def _end(left: list[TcpSocket], sockets: SocketDiagnostics) -> int:
    """One that cannot be ended saves no other one; return how many were."""
    reason, failed = "this kernel destroys no sockets (INET_DIAG_DESTROY)", 0
    for each in left:
        try:
            failed += not sockets.destroy(each)
        except EdgeError as error:
            reason, failed = str(error), failed + 1
    if failed:
        log.warning("connections that an earlier process left cannot be ended, %d of %d: %s", failed, len(left), reason)
    return len(left) - failed


def is_at(config: BackEndConfig, socket: TcpSocket) -> bool:
    """Is a socket of one of the virtual addresses? Others may use the same mark for what is their own."""
    _, server = key_addresses(connection_of(socket))
    return encode_address(server) in {encode_address(each.packed) for each in config.vaddr}


def take_stock(config: BackEndConfig, adopter: Adopter, connections: CarriedConnections) -> int:
    """Compare what the programs know with the sockets there are; return how many of those nobody knew, and were ended.

    To be called while nothing is adopted. Raises: EdgeError.
    """
    open_sockets = {encode_tuple(connection_of(each)): each for each in connections.open_sockets()}
    for four_tuple, carried in list(adopter.flows()):
        if carried.is_silent:
            connections.end_silently(carried)
        elif four_tuple not in open_sockets or carried.whose is Whose.AGENT:
            connections.give_up(carried)
    unknown = [
        socket
        for four_tuple, socket in open_sockets.items()
        if adopter.look_up(four_tuple) is None and is_at(config, socket)
    ]
    return sum([connections.destroy(each) for each in unknown])
