"""The certificate of a lab's servers: made by openssl(1) at `up`, gone at `down`, trusted by nobody but who is told to.

Must not know which server shows it. Clients check servers against the very same file (curl --cacert).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tcpha.errors import StartError

DOMAIN = "lab.test"
"""The servers are called this, and every name below it (RFC 6761, 6.2: no name of anybody's)."""
_DAYS = 365
_LIMIT_S = 20.0


def find_program() -> str | None:
    """Path of openssl; None if it is not installed."""
    return shutil.which("openssl")


def make(certificate: Path, key: Path, addresses: Iterable[IPv4Address | IPv6Address]) -> None:
    """Write a new key (P-256, readable by root only) and a certificate for the names of the lab and `addresses`.

    Raises:
        StartError: openssl is not installed, or cannot make them.
    """
    program = find_program()
    if program is None:
        raise StartError("openssl is not installed")
    names = ",".join([f"DNS:{DOMAIN}", f"DNS:*.{DOMAIN}", *(f"IP:{address}" for address in addresses)])
    arguments = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    arguments += ["-days", str(_DAYS), "-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName={names}"]
    arguments += ["-keyout", str(key), "-out", str(certificate)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode:
        raise StartError(f"openssl makes no certificate: {done.stderr.strip()}")
