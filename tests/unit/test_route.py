"""The command `python -m tcpha route`: what it says would be chosen, why, and with which exit status."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tcpha.__main__ import main
from tcpha.invocation import command
from tests.unit.module_list import ROOT
from tests.unit.original_files import ORIGINAL_BE, ORIGINAL_FE

A, B = "192.168.1.33", "192.168.1.38"
RULES = f"""\
rule = {B} sni=\\.example\\.com$
rule = {B} octets=^SSH-2
rule = {A},{B} balance=hash:cookie.id path=^/shop/
rule = {A},{B} balance=least host=^least\\. client=198.51.100.0/24
rule = {A},{B} header.user-agent=curl
rule = {A} port=8080
rule = {B} jpg$
rule = {A} .*
"""
MANY = ORIGINAL_FE.partition("rule")[0] + "vport = 80\nvport = 8080\nvaddr = 2001:db8::36\n" + RULES


class Route:
    """Runs the command on a file and keeps what it said."""

    def __init__(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self._capsys = capsys
        self.error = ""

    def __call__(self, *arguments: str) -> tuple[int, list[str]]:
        status = main(["route", "-c", str(self.file), *arguments])
        said = self._capsys.readouterr()
        self.error = said.err
        return status, said.out.splitlines()

    def last(self, *arguments: str) -> tuple[int, str]:
        status, lines = self(*arguments)
        return status, lines[-1]


@pytest.fixture
def route(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Route:
    file = tmp_path / "tcphafe.conf"
    file.write_text(MANY)
    return Route(file, capsys)


# --- what is said


def test_original_file_every_rule_up_to_the_one_that_decides_is_explained(route: Route) -> None:
    route.file.write_text(ORIGINAL_FE)
    assert route("GET /a.png", "--host", "x") == (
        0,
        [
            "http/1 from 192.0.2.1 to port 80: method 'GET', target '/a.png', host 'x'",
            "rule 1, line 6: 192.168.1.38 jpg$",
            "    no: target=jpg$ does not match '/a.png'",
            "rule 2, line 7: 192.168.1.33 .*",
            "    yes: target=.* matches '/a.png'",
            "chosen: 192.168.1.33, the only server of its rule",
        ],
    )
    assert route.error == ""


def test_every_field_of_a_rule_is_explained(route: Route) -> None:
    _, lines = route("/", "--host", "least.example.com", "--client", "198.51.101.7")
    at = lines.index(f"rule 4, line 12: {A},{B} balance=least host=^least\\. client=198.51.100.0/24")
    assert lines[at - 1 : at + 3] == [
        "    no: path=^/shop/ does not match '/'",
        lines[at],
        "    yes: host=^least\\. matches 'least.example.com'",
        "    no: client=198.51.100.0/24 does not match 198.51.101.7",
    ]
    assert "    no: there is no sni" in lines
    assert "    no: port=8080 does not match 80" in lines


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (["GET /a.jpg"], f"chosen: {B}, the only server of its rule"),
        (["/a.jpg"], f"chosen: {B}, the only server of its rule"),
        (["/a.png"], f"chosen: {A}, the only server of its rule"),
        (["/a.jpg", "--port", "8080"], f"chosen: {A}, the only server of its rule"),
        (["OPTIONS *"], f"chosen: {A}, the only server of its rule"),
        (["/", "--header", "User-Agent: curl/8"], f"chosen: {A}, the first in turn"),
        (["/", "--header", "User-Agent: curl/8", "--down", A], f"chosen: {B}, the only one left of 2"),
        (["/shop/", "--header", "Cookie: id=1"], f"chosen: {A}, by the hash of cookie.id '1'"),
        (["/shop/", "--header", "Cookie: id=1", "--down", A], f"chosen: {B}, the only one left of 2"),
        (["/shop/", "--header", "Cookie: id=8"], f"chosen: {B}, by the hash of cookie.id '8'"),
        (["/shop/"], f"chosen: {A}, the first in turn: there is no cookie.id to hash"),
        (
            ["/", "--host", "least.x", "--client", "198.51.100.1"],
            f"chosen: {A}, the first of those with the fewest connections: here nobody has any",
        ),
        (["--sni", "www.example.com"], f"chosen: {B}, the only server of its rule"),
        (["--sni", "www.example.com", "--alpn", "h2,http/1.1"], f"chosen: {B}, the only server of its rule"),
        (["--alpn", "h2", "--port", "8080"], f"chosen: {A}, the only server of its rule"),
        (["/", "--client", "2001:db8::1"], f"chosen: {A}, the only server of its rule"),
    ],
)
def test_server_is_chosen_with_the_reason_and_status_0(route: Route, arguments: list[str], last: str) -> None:
    assert route.last(*arguments) == (0, last)


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (["--sni", "www.example.org"], ["no rule matches", "a TLS alert, unrecognized_name (112)"]),
        (["--alpn", "h2"], ["no rule matches", "a TLS alert, handshake_failure (40)"]),
        (
            ["--sni", "www.example.com", "--down", B],
            ["rule 1 matches, and none of its servers can be used", "a TLS alert, internal_error (80)"],
        ),
        (
            ["/a.jpg", "--down", B],
            ["rule 7 matches, and none of its servers can be used", "HTTP/1.1 503 Service Unavailable"],
        ),
        (
            ["/shop/", "--down", A, "--down", B],
            ["rule 3 matches, and none of its servers can be used", "HTTP/1.1 503 Service Unavailable"],
        ),
        (["CONNECT x"], ["http/1, malformed: CONNECT without host and port", "HTTP/1.1 400 Bad Request"]),
        (["/", "--host", "a b"], ["http/1, malformed: invalid Host", "HTTP/1.1 400 Bad Request"]),
        (["GET / HTTP/9.9"], ["http/1, version not supported: ", "HTTP/1.1 505 HTTP Version Not Supported"]),
    ],
)
def test_nothing_is_chosen_with_the_reason_what_the_client_gets_and_status_1(
    route: Route, arguments: list[str], last: list[str]
) -> None:
    status, lines = route(*arguments)
    assert status == 1
    assert lines[-2].startswith(f"nothing chosen: {last[0]}")
    assert lines[-1] == f"the client gets: {last[1]}"


HTTP2_GET = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5) + b"\x00\x00\x0e\x01\x05\x00\x00\x00\x01"
    b"\x82\x86\x84\x01\x09localhost"
)
"""Preface, SETTINGS, GET / of localhost (RFC 7541, appendix A, by its indices)."""


@pytest.mark.parametrize(
    ("octets", "gets"),
    [
        (HTTP2_GET, "503 and GOAWAY, and its connection is closed"),
        (HTTP2_GET[:24] + b"\x00\x00\x00\x01\x05" + bytes(4), "GOAWAY, and its connection is closed"),
        (b"SMTP?", "nothing, its connection is closed"),
    ],
)
def test_nothing_is_chosen_for_another_protocol_what_the_client_gets_is_told(
    route: Route, tmp_path: Path, octets: bytes, gets: str
) -> None:
    route.file.write_text(ORIGINAL_FE.replace("rule = 192.168.1.33 .*", f"rule = {A} octets=^SSH"))
    sent = tmp_path / "sent"
    sent.write_bytes(octets)
    assert route.last("--file", str(sent)) == (1, f"the client gets: {gets}")


def test_pattern_and_target_are_told_without_pythons_quoting(route: Route) -> None:
    route.file.write_text(ORIGINAL_FE.replace("jpg$", r"\.jpg$"))
    _, lines = route("/it's\\\\x.png", "--host", "x")
    assert lines[0].endswith(r"target '/it's\\x.png', host 'x'".replace(r"\\", r"\\\\"))
    assert lines[2].startswith(r"    no: target=\.jpg$ does not match '/it's")
    route.file.write_text(ORIGINAL_FE.replace("jpg$", ".*").replace("192.168.1.33 .*", r"192.168.1.33 \.png$"))
    route("/")
    assert r"rule '\.png$' (line 7) can never win" in route.error


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/2"])
def test_request_is_pasted_from_a_log_its_version_is_taken(route: Route, version: str) -> None:
    for line in (f"GET /a.jpg {version}", f"/a.jpg {version}"):
        status, lines = route(line)
        assert (status, lines[-1]) == (0, f"chosen: {B}, the only server of its rule")
        assert "method 'GET', target '/a.jpg'" in lines[0]


def test_servers_that_are_down_are_named(route: Route) -> None:
    assert route("/shop/", "--down", B)[1][-2] == f"    passed over: {B}"


def test_host_header_stands_for_the_host(route: Route) -> None:
    assert "host 'h.example.com'" in route("/", "--header", "Host: h.example.com:81")[1][0]
    assert "host '192.168.1.36'" in route("/")[1][0]


def test_tls_shows_the_name_and_the_protocols(route: Route) -> None:
    first = "tls from 192.0.2.1 to port 80: sni 'www.example.com', alpn 'h2,http/1.1'"
    assert route("--sni", "WWW.example.com", "--alpn", "h2,http/1.1")[1][0] == first


def test_warnings_of_the_file_are_said_apart(route: Route) -> None:
    route.file.write_text(ORIGINAL_FE.replace("rule = 192.168.1.33 .*\n", ""))
    assert route.last("/a.jpg")[0] == 0
    assert route.error.startswith(f"{route.file}: warning: no rule matches every request")


def test_match_over_its_time_is_told(route: Route) -> None:
    route.file.write_text(ORIGINAL_FE.replace("jpg$", "(a|aa)+$") + "match_time = 1ms")
    _, lines = route("/" + "a" * 100 + "c")
    assert lines[2] == f"    no: target=(a|aa)+$ takes too long '/{'a' * 59}...' (102 octets)"
    assert lines[-1] == "chosen: 192.168.1.33, the only server of its rule"


# --- the first octets from a file


def test_first_octets_are_read_from_a_file(route: Route, tmp_path: Path) -> None:
    octets = tmp_path / "octets"
    octets.write_bytes(b"GET /a.jpg HTTP/1.1\r\nHost: x\r\n\r\na body")
    assert route.last("--file", str(octets)) == (0, f"chosen: {B}, the only server of its rule")


@pytest.mark.parametrize(
    ("octets", "status", "lines"),
    [
        (b"SSH-2.0-x\r\n", 0, ["octets from 192.0.2.1 to port 80: octets 'SSH-2.0-x\\r\\n'", f"chosen: {B}, the only"]),
        (
            b"SSH-",
            1,
            [
                "nothing chosen: the octets end before anything can be told; a front end waits for more",
                "if they do not come: the client gets: ",
            ],
        ),
        (
            b"\x00\x01",
            1,
            [
                "octets from 192.0.2.1 to port 80: octets '\\x00\\x01'",
                "the client gets: nothing, its connection is closed",
            ],
        ),
        (
            b"GET / HTTP/1.1\r\n",
            1,
            [
                "nothing chosen: the octets end before",
                "if they do not come: the client gets: HTTP/1.1 408 Request Timeout",
            ],
        ),
        (
            b"GET / HTTP/9.9\r\n\r\n",
            1,
            ["nothing chosen: http/1, version not supported", "the client gets: HTTP/1.1 505 "],
        ),
        (b"GET /" + b"a" * 20000, 1, ["nothing chosen: http/1, target too long", "the client gets: HTTP/1.1 414 "]),
    ],
)
def test_first_octets_are_read_from_standard_input(
    route: Route, monkeypatch: pytest.MonkeyPatch, octets: bytes, status: int, lines: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(octets)))
    found, said = route("--file", "-")
    assert found == status
    assert said[0].startswith(lines[0])
    assert said[-1].startswith(lines[-1])


def test_octets_that_do_not_decide_yet_say_so_and_what_they_would_come_to(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    route.file.write_text(ORIGINAL_FE + f"rule = {B} octets=^\\x00\\x01\\x02\nrule = {A} octets=.*\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\x00\x01")))
    status, lines = route("--file", "-")
    assert status == 0
    assert lines[1] == "Undecided: a front end waits for more octets. If no more come:"
    assert lines[-1] == f"chosen: {A}, the only server of its rule"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\x00\x00")))
    assert not [line for line in route("--file", "-")[1] if line.startswith("Undecided")]


def test_octets_beyond_what_a_front_end_looks_at_do_not_count(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    route.file.write_text(ORIGINAL_FE + f"inspect_octets = 256\nrule = {B} octets=end\nrule = {A} octets=.*\n")
    for length, server in ((253, B), (254, A)):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes(length) + b"end")))
        assert route.last("--file", "-") == (0, f"chosen: {server}, the only server of its rule")


# --- faults


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "what does the client send?"),
        (["/", "--sni", "x"], "a REQUEST and --sni or --alpn: of a TLS client a front end sees no request"),
        (["/", "--alpn", "h2"], "a REQUEST and --sni or --alpn: of a TLS client a front end sees no request"),
        (["/", "--file", "-"], "a REQUEST and --file are not sent at once: give one of them"),
        (["--sni", "x", "--file", "-"], "--sni or --alpn and --file are not sent at once: give one of them"),
        (["--sni", "x", "--host", "x"], "--host and --header are parts of a REQUEST"),
        (["--file", "-", "--header", "a: b"], "--host and --header are parts of a REQUEST"),
        (["GET / x HTTP/1.1"], "'GET / x HTTP/1.1' is neither METHOD TARGET nor TARGET"),
        (["GET / http/1.1"], "'GET / http/1.1' is neither METHOD TARGET nor TARGET"),
        ([" "], "' ' is neither METHOD TARGET nor TARGET"),
        (["/", "--header", "a"], "a header is 'NAME: VALUE'"),
        (["/", "--header", "a: b\r\nc: d"], "there is no line end in a request's parts"),
        (["--sni", ".x"], "no TLS client would send this"),
        (["--alpn", ","], "no TLS client would send this"),
        (["--file", "/nowhere"], "/nowhere cannot be read: No such file or directory"),
        (["--file", "/dev/null"], "/dev/null is empty"),
        (["/", "--client", "x"], "'x' is no IPv4 or IPv6 address"),
        (["/", "--port", "81"], "port 81 is no vport of this configuration"),
        (["/", "--down", "192.168.1.40"], "192.168.1.40 is in no server line"),
        (["/", "--down", "be1"], "'be1' is no IPv4 or IPv6 address"),
    ],
)
def test_options_that_do_not_fit_are_told_with_status_2(route: Route, arguments: list[str], reason: str) -> None:
    status, lines = route(*arguments)
    assert (status, lines) == (2, [])
    assert route.error.startswith(f"route: {reason}")
    assert route.error.count("\n") == 1


def test_client_of_a_family_that_is_not_served_is_refused(route: Route) -> None:
    route.file.write_text(ORIGINAL_FE)
    assert route("/", "--client", "2001:db8::1")[0] == 2
    assert route.error == "route: 2001:db8::1 is IPv6, but no vaddr is\n"


@pytest.mark.parametrize("arguments", [["/", "--port", "x"], ["/", "--nothing"], ["/", "x"]])
def test_options_that_do_not_exist_exit_with_status_2(route: Route, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        route(*arguments)
    assert raised.value.code == 2


@pytest.mark.parametrize(
    ("words", "quoted"), [(["GET", "/"], "'GET /'"), (["GET", "/", "HTTP/1.1"], "'GET / HTTP/1.1'")]
)
def test_request_without_quotes_is_told_to_be_quoted_with_the_usage_of_route(
    route: Route, capsys: pytest.CaptureFixture[str], words: list[str], quoted: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        route(*words)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert "tcpha route [-h]" in said
    assert said.endswith(f"unrecognized arguments: {' '.join(words[1:])}; quote it: {quoted}\n")


def test_option_that_does_not_exist_is_told_without_a_word_of_quoting(
    route: Route, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        route("GET /", "--nothing")
    assert capsys.readouterr().err.endswith("unrecognized arguments: --nothing\n")


def test_fault_in_the_file_is_told_with_its_line_and_status_2(route: Route) -> None:
    route.file.write_text(ORIGINAL_FE + "rule = 192.168.1.33 host=(\n")
    assert route("/") == (2, [])
    assert route.error == f"route: {route.file}:8: rule: bad pattern: missing ) (column 27)\n"


# --- files of both roles, and the command itself


def test_back_ends_file_is_taken_like_a_front_ends(route: Route) -> None:
    route.file.write_text(ORIGINAL_BE)
    assert route.last("/a.jpg") == (0, f"chosen: {B}, the only server of its rule")
    route.file.write_text(ORIGINAL_BE + "window = 65535\n")
    assert route("/a.jpg")[0] == 2
    assert "window is a key of the front end's file only" in route.error


def test_command_alone_lists_the_commands_and_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    for word in ("route", *map(command, ("tcpha.fe", "tcpha.be", "tcpha.lab"))):
        assert word in said


def test_help_has_examples_that_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["route", "-h"])
    assert raised.value.code == 0
    found = capsys.readouterr().out.partition("examples:")[2].partition("exit status 1\n")
    chosen, unchosen = (re.findall(rf"(?m)^  .*{command('tcpha')} (route .*)$", part) for part in found[::2])
    assert min(len(chosen), len(unchosen)) >= 3
    monkeypatch.chdir(ROOT)
    for example in (*chosen, *unchosen):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"SSH-2.0-x\r\n")))
        assert main(shlex.split(example)) == (example in unchosen), example


def test_command_is_there() -> None:
    command = [sys.executable, "-m", "tcpha", "route", "-c", "etc/tcphafe.conf", "/a.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == f"chosen: {B}, the only server of its rule"


def test_port_whose_rules_look_at_octets_only_what_looks_like_http_is_octets(tmp_path: Path) -> None:
    file = tmp_path / "tcphafe.conf"
    file.write_text(
        MANY.partition("rule")[0]
        + f"vport = 6379\nrule = {B} port=6379 octets=^GET\nrule = {A} port=6379 octets=^\nrule = {A} .*\n"
    )
    sent = tmp_path / "sent"
    sent.write_bytes(b"GET key\r\n")
    done = main(["route", "-c", str(file), "--file", str(sent), "--port", "6379"])
    assert done == 0
    sent.write_bytes(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert main(["route", "-c", str(file), "--file", str(sent), "--port", "6379"]) == 0
    assert main(["route", "-c", str(file), "--file", str(sent), "--port", "80"]) == 1


def test_request_with_http2s_version_is_read_as_http2_and_a_note_tells_of_tls(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    status, lines = route("PUT /a.jpg HTTP/2.0", "--host", "www.example.com", "--header", "Cookie: a=1")
    assert status == 0
    assert lines[0] == ("http/2 from 192.0.2.1 to port 80: method 'PUT', target '/a.jpg', host 'www.example.com'")
    assert "if this was TLS, use --sni" in told.getvalue()


def test_request_with_http3s_version_is_refused_with_a_hint(route: Route) -> None:
    assert route("GET /a.jpg HTTP/3") == (2, [])


OVER = "octets=^SSH-"
MIXED = f"rule = {B} {OVER}\nrule = {A} .*\nrule = {B} octets=^\\x16\\x03\\x03\n"


@pytest.mark.parametrize(
    ("sent", "status", "expected"),
    [
        (b"SSH-2.0-OpenSSH", 0, "the only server of its rule"),
        (b"SS", 1, "nothing chosen"),
        (b"\x16\x03\x03", 0, "the only server of its rule"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 1, "400 Bad Request"),
        (b"GET /" + b"a" * 20000, 1, "414 URI Too Long"),
    ],
)
def test_octets_that_begin_like_a_known_protocol_are_told_as_a_front_end_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sent: bytes, status: int, expected: str
) -> None:
    file = tmp_path / "tcphafe.conf"
    file.write_text(MANY.partition("rule")[0] + MIXED)
    (tmp_path / "sent").write_bytes(sent)
    assert main(["route", "-c", str(file), "--file", str(tmp_path / "sent")]) == status
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(("octets", "waits"), [(255, True), (256, False)])
def test_octets_at_the_limit_nothing_is_said_to_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], octets: int, waits: bool
) -> None:
    file = tmp_path / "tcphafe.conf"
    file.write_text(MANY.partition("rule")[0] + f"inspect_octets = 256\nrule = {B} octets=late\nrule = {A} octets=^\n")
    (tmp_path / "sent").write_bytes(bytes(octets))
    assert main(["route", "-c", str(file), "--file", str(tmp_path / "sent")]) == 0
    assert ("Undecided" in capsys.readouterr().out) == waits
