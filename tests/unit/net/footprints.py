"""What the tests of the footprint share: a plan, other programs' traces on a host, and a look at all of them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tcpha.net import sysctl
from tcpha.net.footprint import Plan, Role
from tests.unit.net.namespaces import Host

VIP4 = IPv4Address("10.77.0.100")
VIP6 = IPv6Address("fd77::100")
MARK = 0x7C0A
ROLES: tuple[Role, Role] = ("fe", "be")


def plan_of(host: Host, *vaddrs: IPv4Address | IPv6Address) -> Plan:
    return Plan(host.iface, vaddrs or (VIP4, VIP6), (80, 443), 660, MARK)


def rules_of(host: Host) -> str:
    """Both families' iptables-save without its comments and counters."""
    text = host.run("iptables-save") + "=\n" + host.run("ip6tables-save")
    return re.sub(r"\[\d+:\d+\]", "", "".join(line for line in text.splitlines(True) if not line.startswith("#")))


def traces_of(host: Host) -> str:
    settings = host.run("sysctl -a -r ^net[.]ipv[46][.]conf")
    return "\n".join([rules_of(host), host.run("ip -o addr"), settings])


def with_others_on_it(host: Host) -> None:
    """Rules, chains and settings of other programs, some of them just beside ours."""
    host.restore_rules(
        4,
        "*raw",
        ":mine - [0:0]",
        '-A PREROUTING -s 192.0.2.1/32 -m comment --comment "tcpha fe is not the whole comment" -j DROP',
        "-A PREROUTING -d 10.77.0.100/32 ! -i lo -p tcp -m tcp --dport 80 -j mine",
        """-A mine -m comment --comment "it's a \\"quoted\\" one" -j RETURN""",
        "COMMIT",
    )
    host.restore_rules(6, "*mangle", "-A FORWARD -j ACCEPT", "COMMIT")
    with host.inside():
        sysctl.write(f"ipv4/conf/{host.iface}/arp_announce", "1")


INSTALL_AND_WAIT = """
import sys
from ipaddress import ip_address
from pathlib import Path
from tcpha.net.footprint import Footprint, Plan
role, iface, state = sys.argv[1:4]
footprint = Footprint(role, Path(state))
footprint.install(Plan(iface, tuple(map(ip_address, sys.argv[4:])), (80, 443), 660, 0x7C0A))
print("installed", flush=True)
sys.stdin.read()
"""


def install_and_kill(host: Host, role: Role, state: Path, *vaddrs: IPv4Address | IPv6Address) -> None:
    """A process that installs its footprint and is killed: nothing of it runs any more, everything stays."""
    words = [sys.executable, "-c", INSTALL_AND_WAIT, role, host.iface, str(state), *map(str, vaddrs)]
    with (
        host.inside(),
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "installed\n"
        finally:
            process.send_signal(signal.SIGKILL)
