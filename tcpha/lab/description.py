"""A lab that stands, in lines for a person: nodes and addresses, what runs in them, what has ended, what is impaired.

Must not change anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpha.invocation import command
from tcpha.lab import impair_command
from tcpha.lab.addressing import DEFAULT_NAME, MTU_OCTETS, ROUTER, Plan
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node


def described(lab: Lab) -> str:
    """Everything about it."""
    plan = lab.plan
    lines = [f"lab {lab.name}, files in {lab.directory}", _row("VIP", str(plan.vip4), str(plan.vip6), "")]
    for place in plan.places:
        node = lab.nodes.get(place.node)
        where = f"namespace {node.namespace}" if node is not None else "missing"
        running = [daemon.program.name for daemon in node.daemons.values() if daemon.is_running] if node else []
        lines.append(_row(place.node, str(place.ipv4), str(place.ipv6), "  ".join([where, *running])))
    lines.extend(_router_rows(plan, lab.nodes.get(ROUTER)))
    lines.extend(impair_command.lines(lab))
    lines.extend(_ended(lab))
    if "fe" in lab.nodes and lab.fe.engine.is_running:
        words = f"{command('tcpha.lab')} exec{_name_option(lab.name)}"
        lines.append(f"try: {words} client -- curl -si http://{plan.vip4}/client")
    return "\n".join(lines)


def remains(name: str) -> str:
    """Of a lab of which something is left, but no node."""
    return f"lab {name}: remains of it; take them down: {command('tcpha.lab')} down{_name_option(name)}"


def _ended(lab: Lab) -> Iterator[str]:
    """Programs that nobody stopped, and yet they do not run."""
    for node in lab.nodes.values():
        for daemon in node.daemons.values():
            if daemon.has_ended:
                yield f"  {node.name}: {daemon.program.name} ended{daemon.how_it_ended}; its log is {daemon.log}"


def _router_rows(plan: Plan, router: Node | None) -> Iterator[str]:
    """One a segment: the router has an interface on each."""
    label, where = ROUTER, f"namespace {router.namespace}" if router is not None else "missing"
    for segment in plan.segments:
        if (place := segment.gateway) is not None:
            mtu = f"MTU {segment.mtu_octets}" if segment.mtu_octets < MTU_OCTETS else ""
            yield _row(label, str(place.ipv4), str(place.ipv6), f"{where}  {place.iface}  {mtu}")
            label, where = "", " " * len(where)


def _row(label: str, ipv4: str, ipv6: str, rest: str) -> str:
    return f"  {label:<8}{ipv4:<16}{ipv6:<20}{rest}".rstrip()


def _name_option(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"
