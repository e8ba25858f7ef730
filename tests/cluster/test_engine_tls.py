"""TLS stays end to end: the ClientHello decides which server gets the connection, however it comes."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from pathlib import Path

import pytest

from tcpha.lab.cluster import Lab
from tcpha.proto.inspect.tls import MOST_RECORDS
from tests.cluster.choosy_rules import CLOSED_PORT
from tests.cluster.conversation import Conversation, Family, client_address, get, post, vip
from tests.cluster.engine_sight import adopted, await_no_flows, digest, digest_line
from tests.cluster.tls_conversation import RECORD_HEADER_OCTETS, TlsConversation, client_context, tls_opened
from tests.unit.proto.inspect import hellos

pytestmark = pytest.mark.cluster

NODE_OF = {"www.lab.test": "be1", "img.lab.test": "be2"}
CLOSE = "Connection: close"


def address_of(lab: Lab, family: Family) -> str:
    """The virtual address as it stands in a URL."""
    return vip(lab, family) if family == "ipv4" else f"[{vip(lab, family)}]"


def curl(lab: Lab, family: Family, url: str, *words: str, body: bytes = b"") -> tuple[dict[str, str], bytes]:
    """Header fields, names in lower case, and content of the answer; every name means the virtual address."""
    command = ["curl", "-sS", "-D", "/dev/stderr", "--max-time", "20", "--cacert", str(lab.certificate)]
    command += ["--resolve", f"*:443:{address_of(lab, family)}", *words, url]
    done = lab.client.run(command, text=False, input=body)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    split = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in split}, done.stdout


def curl_fails(lab: Lab, family: Family, url: str, *words: str) -> str:
    """What curl says of a handshake that failed."""
    command = ["curl", "-sS", "--max-time", "20", "--cacert", str(lab.certificate)]
    done = lab.client.run([*command, "--connect-to", f"::{address_of(lab, family)}:", *words, url])
    assert done.returncode == 35, done.stderr
    return done.stderr


def s_client(lab: Lab, family: Family, name: str, *words: str | Path, request: bytes) -> str:
    """All that openssl(1) says while it sends a request and reads to the end."""
    command = ["openssl", "s_client", "-connect", f"{address_of(lab, family)}:443", "-servername", name]
    return lab.client.run([*command, "-ign_eof", "-CAfile", lab.certificate, *words], input=request).stdout


# --- which server


@pytest.mark.parametrize("name", NODE_OF)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_names_a_server_is_answered_by_the_one_the_rules_name(
    protocol_lab: Lab, family: Family, version: str, name: str
) -> None:
    fields, content = curl(protocol_lab, family, f"https://{name}/1k", "--http1.1", "--tls-max", version, "--tlsv1.2")
    assert fields["server-node"] == NODE_OF[name]
    assert (fields["tls-name"], fields["tls-version"]) == (name, f"TLSv{version}")
    assert hashlib.sha256(content).hexdigest() == digest(protocol_lab, "1k")


@pytest.mark.parametrize(("offered", "node"), [("--http2", "be2"), ("--http1.1", "be1"), ("--no-alpn", "be1")])
def test_curl_names_no_server_is_answered_by_the_one_for_its_protocols(
    protocol_lab: Lab, family: Family, offered: str, node: str
) -> None:
    """To an address no name is sent (RFC 6066, 3)."""
    fields, _ = curl(protocol_lab, family, f"https://{address_of(protocol_lab, family)}/1k", offered)
    assert fields["server-node"] == node
    assert "tls-name" not in fields
    assert fields.get("tls-alpn") == {"--http2": "h2", "--http1.1": "http/1.1", "--no-alpn": None}[offered]


def test_curl_names_a_server_in_capitals_is_answered_by_the_one_the_rules_name(
    protocol_lab: Lab, family: Family
) -> None:
    told = s_client(protocol_lab, family, "IMG.Lab.TEST", request=get("/1k", CLOSE))
    assert "Server-Node: be2" in told


def test_server_behind_tls_sees_the_clients_address(protocol_lab: Lab, family: Family) -> None:
    _, content = curl(protocol_lab, family, "https://img.lab.test/client")
    assert content.decode() == client_address(protocol_lab, family)


def test_client_keeps_its_connection_and_is_answered_on_it_again_and_again(protocol_lab: Lab, family: Family) -> None:
    with tls_opened(protocol_lab, family, "img.lab.test") as client:
        client.shake_hands()
        for name in ("1k", "100k", "0", "1m"):
            answer = client.ask(get(f"/{name}.html"))
            assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(protocol_lab, name))
        body = os.urandom(300_000)
        assert client.ask(post(body)).body == digest_line(body)
    await_no_flows(protocol_lab)


# --- transfers


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_large_download_over_tls_is_whole(protocol_lab: Lab, family: Family, protocol: str) -> None:
    fields, content = curl(protocol_lab, family, "https://img.lab.test/10m", protocol)
    assert fields["server-node"] == "be2"
    assert hashlib.sha256(content).hexdigest() == digest(protocol_lab, "10m")


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_large_upload_over_tls_is_whole(protocol_lab: Lab, family: Family, protocol: str) -> None:
    body = os.urandom(5_000_000)
    fields, content = curl(
        protocol_lab, family, "https://img.lab.test/sink", protocol, "--data-binary", "@-", body=body
    )
    assert fields["server-node"] == "be2"
    assert content == digest_line(body)


# --- however the ClientHello comes


def answered(lab: Lab, client: TlsConversation) -> None:
    """The handshake is over: the server of img.lab.test answers."""
    answer = client.ask(get("/100k", CLOSE))
    assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(lab, "100k"))
    assert answer.headers["tls-name"] == "img.lab.test"


def test_hello_comes_octet_by_octet_is_answered(protocol_lab: Lab, family: Family) -> None:
    with tls_opened(protocol_lab, family, "img.lab.test") as client:
        client.shake_hands([bytes((octet,)) for octet in client.hello()])
        answered(protocol_lab, client)
    await_no_flows(protocol_lab)


def test_hello_is_cut_anywhere_and_its_beginning_acknowledged_is_answered(protocol_lab: Lab, family: Family) -> None:
    positions = (1, 2, 4, 5, 6, 9, 43, 44, 100, -100, -2, -1)
    for position in positions:
        with tls_opened(protocol_lab, family, "img.lab.test") as client:
            hello = client.hello()
            client.socket.sendall(hello[:position])
            client.await_acknowledged()
            client.shake_hands([hello[position:]])
            answered(protocol_lab, client)
    await_no_flows(protocol_lab)


@pytest.mark.parametrize("pieces", [2, 7, MOST_RECORDS - 1])
def test_hello_is_cut_into_records_is_answered(protocol_lab: Lab, family: Family, pieces: int) -> None:
    with tls_opened(protocol_lab, family, "img.lab.test") as client:
        message = client.hello()[RECORD_HEADER_OCTETS:]
        records = hellos.records(message, [len(message) // pieces] * (pieces - 1))
        assert records.count(b"\x16\x03\x01") >= pieces
        client.shake_hands([records])
        answered(protocol_lab, client)


def test_hello_is_cut_into_more_records_than_are_read_is_told_so(protocol_lab: Lab, family: Family) -> None:
    with tls_opened(protocol_lab, family, "img.lab.test") as client:
        message = client.hello()[RECORD_HEADER_OCTETS:]
        with pytest.raises(ssl.SSLError, match="alert illegal parameter"):
            client.shake_hands([hellos.records(message, [1] * MOST_RECORDS)])
    await_no_flows(protocol_lab)


def test_openssl_cuts_its_hello_into_records_is_answered(protocol_lab: Lab, family: Family) -> None:
    offers = ",".join(["x" * 200] * 5 + ["http/1.1"])
    told = s_client(
        protocol_lab, family, "img.lab.test", "-max_send_frag", "512", "-split_send_frag", "512", "-alpn", offers,
        "-msg", request=get("/1k", CLOSE),
    )  # fmt: skip
    assert told.count("16 03 01 02 00") == 2, "its hello was not in three records"
    assert "Server-Node: be2" in told
    assert "Tls-Name: img.lab.test" in told


@pytest.mark.parametrize("hello_octets", [1_400, 1_500, 3_000, 9_000, 16_000])
def test_long_hello_is_answered(protocol_lab: Lab, family: Family, hello_octets: int) -> None:
    """As long as those with keys for the time after quantum computers, and much longer."""
    offers, rest = divmod(hello_octets - 500, 250)
    context = client_context(protocol_lab, *["x" * 249] * offers, "y" * (rest + 1), "http/1.1")
    with tls_opened(protocol_lab, family, "img.lab.test", context) as client:
        hello = client.hello()
        assert abs(len(hello) - hello_octets) < 200
        client.shake_hands([hello])
        answered(protocol_lab, client)
    await_no_flows(protocol_lab)


HELLOS = {
    "Chrome": hellos.chrome(b"img.lab.test"),
    "Firefox": hellos.firefox(b"img.lab.test"),
    "a resumption": hellos.resumption(b"img.lab.test"),
}


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("of", HELLOS)
def test_hello_with_a_post_quantum_key_reaches_the_server_whole(
    protocol_lab: Lab, family: Family, of: str, pieces: int
) -> None:
    """Its keys are made up, so it cannot go further than the answer: a ServerHello with the key share of X25519."""
    record = HELLOS[of].record
    assert len(record) > 1_700
    before = [adopted(node) for node in protocol_lab.backends]
    with Conversation.open(protocol_lab, family, vport=443, nagle=False) as client:
        size = -(-len(record) // pieces)
        for start in range(0, len(record), size):
            client.send(record[start : start + size])
            if start + size < len(record):
                client.await_acknowledged()
        answer = client.exactly(RECORD_HEADER_OCTETS + 4)
    assert (answer[0], answer[RECORD_HEADER_OCTETS]) == (22, 2), "no ServerHello"
    after = [adopted(node) for node in protocol_lab.backends]
    assert [new - old for new, old in zip(after, before, strict=True)] == [0, 1]


# --- sessions


def test_client_comes_back_is_sent_to_the_server_that_knows_its_session(choosy_lab: Lab, family: Family) -> None:
    """Balanced by the client's address; the servers share no keys of tickets."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(choosy_lab, version=version)
        session, found = None, []
        for _ in range(4):
            with tls_opened(choosy_lab, family, "sticky.lab.test", context, session=session) as client:
                client.shake_hands()
                answer = client.ask(get("/1k", CLOSE))
                found.append((answer.node, answer.headers["tls-resumed"]))
                session = client.tls.session
        node = found[0][0]
        assert found == [(node, "."), (node, "r"), (node, "r"), (node, "r")]


def test_client_sends_early_data_the_server_takes_it(choosy_lab: Lab, family: Family, tmp_path: Path) -> None:
    session, request = tmp_path / "session", tmp_path / "request"
    request.write_bytes(get("/1k", CLOSE))
    first = s_client(choosy_lab, family, "sticky.lab.test", "-sess_out", session, request=get("/1k", CLOSE))
    second = s_client(choosy_lab, family, "sticky.lab.test", "-sess_in", session, "-early_data", request, request=b"")
    assert "Early data was accepted" in second
    nodes = [re.findall(r"^Server-Node: (\S+)", told, re.M) for told in (first, second)]
    assert nodes[0] == nodes[1] != []
    await_no_flows(choosy_lab)


def test_tenants_are_spread_by_their_names_and_each_stays_where_it_is(choosy_lab: Lab, family: Family) -> None:
    nodes: dict[int, str | None] = {}
    for _ in range(2):
        for tenant in range(12):
            with tls_opened(choosy_lab, family, f"tenant-{tenant}.lab.test") as client:
                client.shake_hands()
                node = client.ask(get("/1k", CLOSE)).node
                assert nodes.setdefault(tenant, node) == node
    assert len(set(nodes.values())) > 1


# --- what cannot be served

NO_HANDSHAKE = [
    pytest.param("https://other.lab.test/", "unrecognized name", id="a name that no rule has"),
    pytest.param(f"https://www.lab.test:{CLOSED_PORT}/", "internal error", id="no server that can be used"),
    pytest.param("https://www.lab.test:80/", "unrecognized name", id="a port without TLS"),
]


@pytest.mark.parametrize(("url", "alert"), NO_HANDSHAKE)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_cannot_be_served_understands_why(
    choosy_lab: Lab, family: Family, version: str, url: str, alert: str
) -> None:
    assert alert in curl_fails(choosy_lab, family, url, "--tls-max", version)


def test_curl_names_no_server_and_no_rule_is_for_it_understands_why(choosy_lab: Lab, family: Family) -> None:
    assert "handshake failure" in curl_fails(choosy_lab, family, f"https://{address_of(choosy_lab, family)}/")


def test_alert_is_sent_the_connection_ends_and_nothing_is_left_of_it(choosy_lab: Lab, family: Family) -> None:
    context = client_context(choosy_lab)
    with tls_opened(choosy_lab, family, "other.lab.test", context) as client:
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            client.shake_hands()
        assert client.socket.recv(1) == b""
    await_no_flows(choosy_lab)


def test_hello_is_longer_than_what_is_read_client_understands(protocol_lab: Lab, family: Family) -> None:
    context = client_context(protocol_lab, *["x" * 249] * 70)
    with (
        tls_opened(protocol_lab, family, "img.lab.test", context) as client,
        pytest.raises(ssl.SSLError, match="ILLEGAL_PARAMETER"),
    ):
        client.shake_hands()


def test_request_without_tls_comes_to_the_port_of_tls_is_answered_in_its_own_protocol(
    protocol_lab: Lab, choosy_lab: Lab, family: Family
) -> None:
    """By the server, where a rule sends it there; else by the front end."""
    with Conversation.open(protocol_lab, family, vport=443) as client:
        answer = client.ask(get("/1k"))
        assert (answer.status, answer.node) == (400, "be1")
        assert b"plain HTTP request was sent to HTTPS port" in answer.body
    with Conversation.open(choosy_lab, family, vport=443) as client:
        answer = client.ask(get("/1k"))
        assert (answer.status, answer.node) == (503, None)
