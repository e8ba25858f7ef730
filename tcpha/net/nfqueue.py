"""Packets out of an NFQUEUE, each handed to a callback that gives its verdict.

Built on NetfilterQueue, whose own reader cuts packets at 4016 octets; here its socket is read through a buffer that
holds the largest packet there is. Knows nothing of what is in a packet. Format: linux/netfilter/nfnetlink_queue.h.

A packet that finds the queue full, or the receive buffer, is dropped: there is no fail-open, because a packet let
through untranslated does more harm than one its sender repeats.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import warnings
from collections.abc import Callable

from netfilterqueue import COPY_NONE, COPY_PACKET, NetfilterQueue, Packet

from tcpha.errors import EdgeError, StartError
from tcpha.net import clock
from tcpha.net.netlink import (
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Message,
    NetlinkSocket,
    decode_messages,
    encode_attribute,
    encode_message,
    error_of,
)

_NETLINK_NETFILTER = 12
_CONFIG = 3 << 8 | 2  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG
_VERDICT_BATCH = 3 << 8 | 3  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_VERDICT_BATCH
_VERDICT_HEADER = 2
_VERDICT_HEADER_VALUE = struct.Struct("!II")  # verdict, number of the last packet
_NF_DROP = 0
_CFG_CMD, _CFG_PARAMS, _CFG_MASK, _CFG_FLAGS = 1, 2, 4, 5
_CFG_F_GSO = 1 << 2
_CMD_PF_BIND = 3
_NFGENMSG = struct.Struct("!BBH")  # family, version, queue number
_CFG_PARAMS_VALUE = struct.Struct("!IB")  # copy range in octets, copy mode
_COPY_RANGE_OCTETS = 0xFFFF

# The largest message: 65535 octets of packet, below 1 KiB of other attributes. Behind it, room for the zeros.
_ZEROS = bytes(24)
_BUFFER_OCTETS = 66 * 1024 + 512
# A changed packet travels back in the verdict, and netlink refuses what does not fit into the send buffer.
_SEND_BUFFER_OCTETS = 256 * 1024
_DONTWAIT = int(socket.MSG_DONTWAIT)
_LOG_INTERVAL_S = 10.0

_log = logging.getLogger(__name__)


class _Reader:
    """Stands in for the socket that `NetfilterQueue.run_socket` reads: its `recv` ignores the size asked for.

    run_socket passes the whole length of what `recv` returns to libnfnetlink, which walks it message by message. The
    same buffer is returned each time, instead of a copy of the octets received, because a copy of a 64 KiB packet costs
    as much as the packet's system calls. What a longer message left behind the present one must then not be read as
    a further message: zeros are written there. libnfnetlink rounds the message's length up to 4 octets (so up to 3
    are skipped), finds a length below that of a header (16 octets) and stops.
    """

    __slots__ = ("_buffer", "_receive", "_window", "left", "overruns", "source")

    def __init__(self, source: socket.socket) -> None:
        self.source = source
        self._receive = source.recv_into
        self.left = 0  # messages that may still be read in this burst
        self.overruns = 0
        self._buffer = bytearray(_BUFFER_OCTETS)
        self._window = memoryview(self._buffer)[: _BUFFER_OCTETS - len(_ZEROS)]

    def recv(self, _octets: int) -> bytearray:
        """Return the buffer with the next message at its start, zeros behind it.

        Raises: BlockingIOError if nothing waits or the burst is over, which ends run_socket.
        """
        if not self.left:
            raise BlockingIOError(errno.EAGAIN, "the burst is over")
        while True:
            try:
                # Not a non-blocking socket: the flag would be shared with the descriptor that verdicts are sent on.
                length = self._receive(self._window, 0, _DONTWAIT)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                continue
            self._buffer[length : length + len(_ZEROS)] = _ZEROS
            self.left -= 1
            return self._buffer


class PacketQueue:
    """One NFQUEUE, IPv4 and IPv6 alike. Wait for `fileno()` to become readable, then call `read()`.

    Every packet goes to `on_packet`, which gives a verdict (accept, drop), keeps the packet for a later one, or says
    `drop_after_burst`. If the callback fails, its packet is dropped. A packet is in the queue until its verdict;
    `length` packets fill the queue.

    Counters: `packets` handed to the callback, `callback_errors`, `overruns` (times the receive buffer was full: the
    kernel dropped packets, counted in `dropped_by_kernel()`).
    """

    def __init__(
        self,
        number: int,
        on_packet: Callable[[Packet], None],
        *,
        length: int,
        gso: bool = False,
        receive_buffer_octets: int = 16 << 20,
    ) -> None:
        """Bind queue `number` (0..65535), in the network namespace of the calling thread.

        gso: packets of up to 64 KiB arrive as they are, with incomplete checksums; without it the kernel splits them
        into packets of the path's size and completes their checksums first.

        Raises: StartError if the right CAP_NET_ADMIN is missing, the kernel has no NFQUEUE, or the number is in use.
        """
        self.number = number
        self.packets = 0
        self.callback_errors = 0
        self._on_packet = on_packet
        self._log_after_s = 0.0
        self._drop_up_to: int | None = None
        """The last packet that is to be dropped when the burst is over."""
        _require_nfqueue()
        try:
            self._queue = NetfilterQueue()
        except OSError as error:
            raise StartError(f"NFQUEUE number {number} cannot be bound: {error}") from error
        self._reader = _Reader(socket.socket(fileno=os.dup(self._queue.get_fd())))
        try:
            self._bind(length, receive_buffer_octets)
            self._configure(gso)
        except BaseException:
            self.close()
            raise

    @property
    def overruns(self) -> int:
        """Times the kernel reported that the receive buffer was full (ENOBUFS)."""
        return self._reader.overruns

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when packets wait."""
        return self._reader.source.fileno()

    def read(self, burst: int = 256) -> None:
        """Hand at most `burst` waiting packets to the callback. Does not wait.

        Raises: EdgeError if the socket fails.
        """
        self._reader.left = burst
        try:
            self._queue.run_socket(self._reader)
        except OSError as error:
            raise EdgeError(f"NFQUEUE {self.number}: {error}") from error
        finally:
            if self._drop_up_to is not None:
                self._drop_noted(self._drop_up_to)

    def drop_after_burst(self, packet: Packet) -> None:
        """Drop a packet a little later, and others with it: one message to the kernel costs less than one for each.

        The kernel then drops everything up to this packet that has no verdict, so of a queue with which this is used no
        packet can be kept.
        """
        self._drop_up_to = packet.id

    def dropped_by_kernel(self) -> int:
        """Return how many packets the kernel dropped because the queue or the receive buffer was full."""
        fields = _kernel_entry(self.number)
        return int(fields[5]) + int(fields[6]) if fields else 0

    def close(self) -> None:
        """Give the number back; the kernel drops the packets that still wait for a verdict."""
        self._queue.unbind()
        self._reader.source.close()

    def _bind(self, length: int, receive_buffer_octets: int) -> None:
        """Create the queue in a mode in which the kernel passes nothing up yet.

        With packets arriving, the library would read them with its small buffer while it waits for the answers to its
        own requests, and lose them without a verdict.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                self._queue.bind(
                    self.number, self._on_message, max_len=length, mode=COPY_NONE, sock_len=receive_buffer_octets
                )
        except OSError as error:
            if fields := _kernel_entry(self.number):
                raise StartError(
                    f"NFQUEUE number {self.number} is in use by another program (netlink port {fields[1]})"
                ) from error
            raise StartError(f"NFQUEUE number {self.number} cannot be bound: {error}") from error
        granted = self._reader.source.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        if granted < receive_buffer_octets:
            _log.warning(
                "NFQUEUE %d: receive buffer of %d octets instead of %d (net.core.rmem_max)",
                self.number,
                granted,
                receive_buffer_octets,
            )
        self._reader.source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_OCTETS)

    def _configure(self, gso: bool) -> None:
        """Set the flags, then the copy range; from then on packets arrive.

        The messages ask for no acknowledgement, so only an error is answered, and before the second message takes
        effect nothing but an error can be waiting.
        """
        if gso:
            flag = struct.pack("!I", _CFG_F_GSO)
            self._send_config(encode_attribute(_CFG_FLAGS, flag) + encode_attribute(_CFG_MASK, flag))
        params = _CFG_PARAMS_VALUE.pack(_COPY_RANGE_OCTETS, COPY_PACKET)
        self._send_config(encode_attribute(_CFG_PARAMS, params))

    def _send_config(self, attributes: bytes) -> None:
        source = self._reader.source
        body = _NFGENMSG.pack(socket.AF_UNSPEC, 0, self.number) + attributes
        source.send(encode_message(Message(_CONFIG, NLM_F_REQUEST, 0, body)))
        try:
            octets = source.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return
        for message in decode_messages(octets):
            if message.kind == NLMSG_ERROR and (code := error_of(message)):
                raise StartError(f"NFQUEUE number {self.number} cannot be set up: {os.strerror(code)}")

    def _drop_noted(self, last: int) -> None:
        self._drop_up_to = None
        verdict = encode_attribute(_VERDICT_HEADER, _VERDICT_HEADER_VALUE.pack(_NF_DROP, last))
        body = _NFGENMSG.pack(socket.AF_UNSPEC, 0, self.number) + verdict
        try:
            self._reader.source.send(encode_message(Message(_VERDICT_BATCH, NLM_F_REQUEST, 0, body)))
        except OSError as error:
            raise EdgeError(f"NFQUEUE {self.number}: {error}") from error

    def _on_message(self, packet: Packet) -> None:
        self.packets += 1
        try:
            self._on_packet(packet)
        except Exception:
            _drop(packet)
            self.callback_errors += 1
            now_s = clock.now()
            if now_s >= self._log_after_s:
                self._log_after_s = now_s + _LOG_INTERVAL_S
                _log.exception(
                    "NFQUEUE %d: dropped a packet whose callback failed (%d so far)", self.number, self.callback_errors
                )
        except BaseException:
            _drop(packet)
            raise


def _drop(packet: Packet) -> None:
    try:
        packet.drop()
    except RuntimeError:
        return  # the callback had given a verdict before it failed


def _require_nfqueue() -> None:
    """Ask the kernel for nothing (PF_BIND has no effect since Linux 3.8): the library hides why it was refused."""
    command = struct.pack("!BBH", _CMD_PF_BIND, 0, socket.AF_INET)
    body = _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0) + encode_attribute(_CFG_CMD, command)
    probe = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        probe.request(_CONFIG, 0, body)
    except PermissionError as error:
        raise StartError("packets cannot be queued: the right CAP_NET_ADMIN is missing") from error
    except OSError as error:
        raise StartError(f"this kernel has no NFQUEUE (nfnetlink_queue): {error}") from error
    finally:
        probe.close()


def _kernel_entry(number: int) -> list[str]:
    """Return the kernel's line of a bound queue: number, port, waiting, mode, range, queue full, buffer full, ..."""
    try:
        with open("/proc/thread-self/net/netfilter/nfnetlink_queue") as listing:
            for line in listing:
                fields = line.split()
                if fields and fields[0] == str(number):
                    return fields
    except OSError:
        return []
    return []
