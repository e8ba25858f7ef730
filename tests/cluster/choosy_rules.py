"""The rules of a lab in which every field and every way to choose among servers decides something.

The query of a request names what is tried. Nothing is behind port 9999: no server of the rules for it can be used. No
rule is for a TLS client that names another server, or for a request with another query: they are unrouted.
"""

from __future__ import annotations

from tcpha.lab.configuration import HANDOFF_PORT, PROTOCOL_PORTS, Settings

BE1, BE2, BE3 = "198.18.0.33", "198.18.0.38", "198.18.0.39"
WEIGHT_OF_BE3 = 3
MAX_FLOWS = 64
INSPECT_TIME_S = 0.6
CLOSED_PORT = 9999
OTHER_CLIENTS = {
    "ipv4": [f"198.18.0.{host}" for host in range(100, 113)],
    "ipv6": [f"fd00:198:18::{host}" for host in range(100, 113)],
}
"""Addresses that tests give the client's node; a rule knows the network of the last one of each family."""

RULES = (
    # every field once
    f"{BE2} method=^(PUT|DELETE)$ query=^field$",
    f"{BE3} path=^/path$ query=^field$",
    f"{BE2} host=^Img\\. query=^field$",
    f"{BE3} header.user-agent=(?i)mobile query=^field$",
    f"{BE2} cookie.beta=^on$ query=^field$",
    f"{BE3} port=8080 query=^field$",
    f"{BE2} client=198.18.0.112/28,fd00:198:18::110/124 query=^field$",
    f"{BE3} target=^/target[?]field$",
    f"{BE3} method=^GET$ path=^/all$ header.x=^1$ cookie.y=^2$ query=^field$",
    f"{BE1} query=^field$",
    # every way to choose
    f"{BE1},{BE2} balance=rr query=^rr$",
    f"{BE1},{BE2},{BE3} query=^weights$",
    f"{BE1},{BE2} balance=least query=^least$",
    f"{BE1},{BE3} balance=least query=^least-weights$",
    f"{BE1},{BE2},{BE3} balance=hash:client query=^client$",
    f"{BE1},{BE2},{BE3} balance=hash:cookie.session query=^session$",
    f"{BE1},{BE2} query=^alternatives$",
    f"{BE1} query=^first$",
    # TLS, and what cannot be served
    f"{BE1},{BE2},{BE3} balance=hash:client port=443 sni=^sticky\\.",
    f"{BE1},{BE2},{BE3} balance=hash:sni port=443 sni=^tenant-\\d+\\.",
    f"{BE1} port={CLOSED_PORT} sni=.",
    f"{BE1} port={CLOSED_PORT} path=.",
    f"{BE3} port=6379 octets=^\\*1\\r\\n\\$\\d+\\r\\n(?i:ping)\\r\\n",
    f"{BE1} port=6379 octets=^\\*",
)

SETTINGS = Settings(
    both=(
        f"server = {BE1} {HANDOFF_PORT}",
        f"server = {BE2} {HANDOFF_PORT}",
        f"server = {BE3} {HANDOFF_PORT} weight={WEIGHT_OF_BE3}",
        *(f"vport = {port}" for port in (*PROTOCOL_PORTS, CLOSED_PORT)),
        *(f"rule = {rule}" for rule in RULES),
    ),
    fe=(f"inspect_time = {INSPECT_TIME_S}",),
    be=(f"max_flows = {MAX_FLOWS}",),
)
