"""What a front end promises clients in the name of every back end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tcpha.proto.ip import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS
from tcpha.proto.options import ALIGNED_TIMESTAMPS_OCTETS
from tcpha.proto.tcp import TCP_HEADER_OCTETS

IPV6_EXTRA_OCTETS = IPV6_HEADER_OCTETS - IPV4_HEADER_OCTETS
"""An IPv6 header is that much longer than one of IPv4."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Options offered in the SYN-ACK; the same on all nodes, whatever stack a back end has.

    Deviation: the window scale is that of the configuration, not that of the host which will answer; its windows are
    translated, those of the front end are rounded to the promised scale.
    """

    mss: int
    """Over IPv4, 88..8960; over IPv6 20 less."""
    window_scale: int | None
    """0..14, None: windows are never scaled."""
    sack: bool
    timestamps: bool

    def mss_of(self, ipv6: bool) -> int:
        """Return the MSS offered over one address family."""
        return self.mss - IPV6_EXTRA_OCTETS if ipv6 else self.mss

    def fitted(self, mtu_octets: int) -> Promise:
        """Return the promise for a way on which packets of `mtu_octets` fit; what was promised is never exceeded."""
        return replace(self, mss=min(self.mss, mtu_octets - IPV4_HEADER_OCTETS - TCP_HEADER_OCTETS))

    def offered(self, octets: int, ipv6: bool, timestamps: bool) -> int:
        """Return the part of `octets` that is offered as a window: whole segments, as Linux does."""
        segment = self.mss_of(ipv6) - (ALIGNED_TIMESTAMPS_OCTETS if timestamps else 0)
        return octets - octets % segment if octets > segment else octets

    def window_field(self, octets: int, scaled: bool) -> int:
        """Return the window field that offers `octets`, at most 65535.

        Rounded up: a window must not shrink (RFC 9293, 3.8.6), and the unscaled one of a SYN-ACK is never rounded.
        """
        if not scaled or not self.window_scale:
            return min(octets, 0xFFFF)
        return min(-(-octets >> self.window_scale), 0xFFFF)
