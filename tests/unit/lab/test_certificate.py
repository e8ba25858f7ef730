from __future__ import annotations

import ssl
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from tcpha.errors import StartError
from tcpha.lab import certificate

ADDRESSES = (ip_address("198.18.0.36"), ip_address("fd00:198:18::36"))


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    if certificate.find_program() is None:
        pytest.skip("openssl is not installed")
    paths = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.make(*paths, ADDRESSES)
    return paths


def handshake(made: tuple[Path, Path], name: str) -> ssl.SSLObject:
    """A client that trusts the certificate only and a server that shows it, in memory."""
    far, near = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    far.load_cert_chain(*made)
    near.load_verify_locations(made[0])
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = far.wrap_bio(upward, downward, server_side=True)
    client = near.wrap_bio(downward, upward, server_hostname=name)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client


@pytest.mark.parametrize("name", ["lab.test", "www.lab.test", "any.lab.test", "198.18.0.36", "fd00:198:18::36"])
def test_certificate_is_trusted_for_the_names_of_the_lab_and_its_addresses(made: tuple[Path, Path], name: str) -> None:
    assert handshake(made, name).version() == "TLSv1.3"


@pytest.mark.parametrize("name", ["other.test", "198.18.0.37"])
def test_certificate_is_not_trusted_for_other_names(made: tuple[Path, Path], name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(made, name)


def test_key_is_readable_by_its_owner_only(made: tuple[Path, Path]) -> None:
    assert made[1].stat().st_mode & 0o077 == 0


def test_openssl_is_not_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "find_program", lambda: None)
    with pytest.raises(StartError, match="openssl is not installed"):
        certificate.make(tmp_path / "a", tmp_path / "b", ADDRESSES)


def test_openssl_fails_its_words_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "openssl"
    program.write_text("#!/bin/sh\necho the disk is full >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(certificate, "find_program", lambda: str(program))
    with pytest.raises(StartError, match="no certificate: the disk is full"):
        certificate.make(tmp_path / "a", tmp_path / "b", ADDRESSES)


def test_certificate_is_for_two_keys_never_the_same(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate.make(tmp_path / "other" / "tls.crt", tmp_path / "other" / "tls.key", ADDRESSES)
    digests = {
        subprocess.run(["openssl", "x509", "-in", path, "-noout", "-pubkey"], capture_output=True, check=True).stdout
        for path in (made[0], tmp_path / "other" / "tls.crt")
    }
    assert len(digests) == 2
