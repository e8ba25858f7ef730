"""Puts back what others have taken from a host while a process runs. Which, and how often, tcpha.upkeep decides.

The record of the footprint holds: what is put back is taken away in the end, and the values to restore stay those from
before the start.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from tcpha.errors import EdgeError
from tcpha.net import link
from tcpha.net.footprint import Footprint, Plan


class RestoringFootprint(Footprint):
    """A footprint that can be mended; between `install` and `remove` only."""

    def put_back_address(self, plan: Plan, addr: str) -> None:
        """Put one virtual address where `install` puts it. Raises: EdgeError, StartError."""
        try:
            self._add_addresses(self._load(), replace(plan, vaddrs=(ip_address(addr),)))
        except OSError as error:  # its interface has just gone
            raise EdgeError(f"{addr}: {error.strerror}") from error

    def put_back_settings(self, plan: Plan) -> None:
        """Set what `install` sets, but for what others may choose. Raises: EdgeError, StartError."""
        record = self._load()
        if self._role == "be":
            self._let_sockets_inherit_marks(record, plan)
            self._silence_arp(record, plan)

    def prepare_interface(self, plan: Plan) -> None:
        """Do to an interface that was made again what `install` did to the first. Raises: EdgeError, StartError."""
        record = self._load()
        if plan.iface not in record.merging:
            self._switch_merging_off(record, plan.iface)
        elif link.merges_on_receive(plan.iface):
            link.set_merges_on_receive(plan.iface, False)
        self.put_back_settings(plan)
