"""What is warned of in a list of rules, and above all what is not."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tcpha.balance import Endpoint
from tcpha.rule_text import parse_rule
from tcpha.rule_warnings import Served, _is_port, rule_warnings

A, B = "192.168.1.33", "192.168.1.38"
SERVERS = [Endpoint(ip_address(A), 666), Endpoint(ip_address(B), 666)]
USUAL = Served()
BOTH = Served((80, 443))


def warnings_of(*lines: str, served: Served = USUAL) -> tuple[str, ...]:
    """Of rules that both servers have."""
    rules = [parse_rule(f"{A},{B} {line}", number) for number, line in enumerate(lines, start=1)]
    return rule_warnings(rules, SERVERS, served)


# --- silence


@pytest.mark.parametrize(
    "lines",
    [
        ["jpg$", ".*"],
        ["."],
        ["host=^a path=^/b", "header.x=1", "balance=hash:cookie.id .*"],
        ["client=10.0.0.0/8", ".*"],
        ["client=10.0.0.0/8", "client=192.0.2.0/24 path=/x", "path=/x", ".*"],
        ["host=a path=/b", "path=/b host=b", "host=a", ".*"],
        ["balance=hash:client sni=a", "sni=b", "port=.*"],
        ["client=0.0.0.0/0,::/0"],
        ["octets=^SSH-", "octets=.*"],
        ["octets=^SSH-", "octets=^\\x16\\x03", "jpg$", "port=80"],
        ["port=80|443 host=a", "post[=]1", "sort[=]a", ".*"],
        ["method=.*"],
    ],
)
def test_sensible_rules_draw_no_warning(lines: list[str]) -> None:
    assert warnings_of(*lines) == ()


@pytest.mark.parametrize(
    "lines",
    [
        ["sni=a", "port=443", ".*"],
        ["sni=a", "port=443", "port=80 target=jpg$", "port=80 target=.*"],
        ["port=80 host=a", "port=443 sni=a", "port=443", ".*"],
        ["port=80", "port=443"],
    ],
)
def test_sensible_rules_for_two_ports_draw_no_warning(lines: list[str]) -> None:
    assert warnings_of(*lines, served=BOTH) == ()


# --- no catch-all


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        (
            ["jpg$", "^/"],
            "no rule matches every request: what no rule matches is answered 503; end with `rule = ADDR",
        ),
        (["host=.*"], "no rule matches every request"),
        (["path=.*"], "no rule matches every request"),
        (["client=10.0.0.0/8"], "no rule matches every request"),
        (["client=0.0.0.0/0"], "no rule matches every request"),
        (["sni=a"], "no rule matches every TLS connection: what no rule matches is ended with an alert"),
        (["sni=.*", "alpn=.*"], "no rule matches every TLS connection"),
        (["sni=a", ".*"], "no rule matches every TLS connection"),
        (
            ["octets=^SSH-", ".*"],
            "no rule matches every connection of another protocol: what no rule matches is closed",
        ),
    ],
)
def test_kind_of_connection_without_a_catch_all_is_warned_of(lines: list[str], warning: str) -> None:
    (found,) = warnings_of(*lines)
    assert found.startswith(warning)


def test_only_one_family_is_served_a_network_of_all_its_clients_is_a_catch_all() -> None:
    assert warnings_of("client=0.0.0.0/0", served=Served(families=(4,))) == ()
    assert len(warnings_of("client=0.0.0.0/0", served=Served(families=(6,)))) == 1


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        (["jpg$", "port=443"], "no rule matches every request to port 80"),
        (["port=443 sni=a", ".*"], "no rule matches every TLS connection to port 443"),
    ],
)
def test_port_without_a_catch_all_is_named(lines: list[str], warning: str) -> None:
    (found,) = warnings_of(*lines, served=BOTH)
    assert found.startswith(warning)


@pytest.mark.parametrize(
    "pattern",
    [".*", ".", "x*", "^", "$", "()", "^.*$", "(?s).", "a?", "jpg$|.*", "[^ ]", "(jpg|)", "^.+$", "(?i).*", r"\S"],
)
def test_pattern_that_matches_every_target_is_a_catch_all(pattern: str) -> None:
    assert warnings_of(pattern) == ()


@pytest.mark.parametrize(
    "pattern",
    [
        "jpg$",
        "/",
        "^/",
        "..",
        "^$",
        "[a-z]",
        r"\w",
        "[^?]",
        r"^[^?]*$",
        r"^[^.]*\.?[^.]*$",
        r"^[^~]*~?[^~]*$",
        "^.{1,200}$",
        r"[\x00-\x7f]",
        r"^(?!.*\.php$)",
        r"(?<!jpg)$",
        r"(a|aa)+$",
    ],
)
def test_pattern_that_spares_some_target_is_no_catch_all(pattern: str) -> None:
    (found,) = warnings_of(pattern)
    assert found.startswith("no rule matches every request")


# --- rules that never win


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([".", "jpg$"], "rule '.' (line 1) before it matches every request"),
        ([".*", "host=a"], "rule '.*' (line 1) before it matches every request"),
        (["port=.*", ".*"], "rule 'port=.*' (line 1) before it matches every request"),
        (["port=.*", "sni=a"], "rule 'port=.*' (line 1) before it matches every TLS connection"),
        (["port=.*", "client=::/0"], "rule 'port=.*' (line 1) before it matches every connection"),
        (["jpg$", "jpg$", ".*"], "rule 'jpg$' (line 1) before it has the same pattern"),
        (["target=jpg$", "jpg$", ".*"], "rule 'jpg$' (line 1) before it has the same pattern"),
        (["host=a path=b", "path=b host=a", ".*"], "rule 'host=a path=b' (line 1) before it has the same pattern"),
        (["host=a", "host=a path=/b", ".*"], "rule 'host=a' (line 1) before it matches whatever it does"),
        (["client=::/8", "client=::/9", ".*"], "rule 'client=::/8' (line 1) before it matches whatever it does"),
        (["client=::/8", "client=::1 host=a", ".*"], "rule 'client=::/8' (line 1) before it matches whatever it does"),
        (["x", "sni=a path=b", ".*"], "sni and path are never seen together: TLS stays end to end"),
        (["x", "header.x=a alpn=h2", ".*"], "alpn and header.x are never seen together: TLS stays end to end"),
        (["x", "port=8080 host=a", ".*"], "its port is no vport"),
    ],
)
def test_second_rule_can_never_win_is_named_with_the_reason(lines: list[str], reason: str) -> None:
    assert warnings_of(*lines) == (f"rule {lines[1]!r} (line 2) can never win: {reason}",)


def test_two_catch_alls_before_a_rule_leave_it_nothing_together() -> None:
    (found,) = warnings_of("port=80", "port=443", "host=a", served=BOTH)
    assert found.startswith(
        "rule 'host=a' (line 3) can never win: rule 'port=80' (line 1) and rule 'port=443' (line 2) bef"
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["client=10.1.0.0/16", "client=10.0.0.0/8", ".*"],
        ["host=a path=/b", "host=a", ".*"],
        ["host=a", "host=b path=/b", ".*"],
        ["client=10.0.0.0/8 host=a", "client=10.1.0.0/16", ".*"],
    ],
)
def test_rule_that_an_earlier_one_leaves_something_is_not_named(lines: list[str]) -> None:
    assert warnings_of(*lines) == ()


# --- rules that were meant otherwise


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Host=a", "`Host=` is part of the pattern: did you mean host=?"),
        ("hosts=a", "`hosts=` is part of the pattern: did you mean host=?"),
        ("header=x", "`header=` is part of the pattern: did you mean header.NAME=?"),
        ("headers.a=x", "`headers.a=` is part of the pattern: did you mean header.NAME=?"),
        ("header.*=x", "`header.*=` is part of the pattern: did you mean header.NAME=?"),
        ("balanced=rr x", "`balanced=` is part of the pattern: did you mean balance=?"),
        ("/a host=a", "`host=` is part of the pattern: fields count from the first word on only"),
        ("/a header.=a", "`header.=` is part of the pattern: fields count from the first word on only"),
        ("post=1", "`post=` is part of the pattern, no field: if that is meant, write post[=]"),
        ("host!=a", "`host!=` is part of the pattern: there is no negation"),
        ("!host=a", "`!host=` is part of the pattern: there is no negation"),
        ("host = a", "`host =` is part of the pattern: did you mean host=? (no blank before `=`); it can never win"),
        ("/a host=a", "`host=` is part of the pattern: fields count from the first word on only; it can never win"),
        ("/a foo=b", "it can never win: a target has no blanks"),
        (r"/a\ b", "it can never win: a target has no blanks"),
        ("jpg$ # pictures", "it can never win: a target has no blanks (no comment can follow a rule)"),
        ("jpg$ balance=rr", "it can never win: a target has no blanks (balance=... stands before the pattern)"),
        ("jpg$ hash:client", "it can never win: a target has no blanks (balance=... stands before the pattern)"),
        (r"host=^a\.de:80$", "it can never win: host is without its port; for the port there is port="),
        (r"host=^a\.de\.$", "it can never win: host is without a dot at its end"),
        (r"sni=^a\.de\.$", "it can never win: sni is without a dot at its end"),
        (r"path=^/a\?b", "it can never win: path ends before the `?`"),
        (r"query=^\?b", "it can never win: query begins behind the `?`"),
        ("octets=^SSH-$", "its pattern for octets looks at what follows ($, \\b, (?=, (?!, ...)"),
        ("octets=SSH-", "its pattern for octets may match however late"),
    ],
)
def test_rule_that_is_hardly_what_was_meant_is_named(line: str, reason: str) -> None:
    (found,) = warnings_of(line, "port=.*")
    assert found.startswith(f"rule '{line}' (line 1): {reason}")


def test_hash_of_a_field_that_its_rule_never_sees_is_warned_of() -> None:
    (found,) = warnings_of("balance=hash:path sni=a", "port=.*")
    assert found == "rule 'sni=a' (line 1): hash:path is never seen with its other fields: its servers take turns"


@pytest.mark.parametrize(
    "line",
    [
        *(
            "=x",
            "octets=^SSH-",
            "octets=^(?:SSH|RFB)",
            "/a[ ]b|x",
            "a ?b",
            "(a b)?c",
            "/id=7",
            "host=^a$",
            r"path=\?*x",
        ),
        *("query=^a", r"host=\.de$", r"path=[?]x|y", "host=a:?", r"sni=a\.|b\.$"),
    ],
)
def test_rule_that_may_well_be_meant_is_not_named(line: str) -> None:
    assert warnings_of(line, "port=.*") == ()


# --- servers


def test_server_that_no_rule_names_is_warned_of() -> None:
    (found,) = rule_warnings([parse_rule(f"{B} .*")], SERVERS)
    assert found == f"server {A} is named by no rule: it gets nothing"


# --- TLS


@pytest.mark.parametrize("lines", [["jpg$", ".*"], ["port=80", "port=443 host=a", ".*"]])
def test_port_of_tls_no_rule_takes_is_told(lines: list[str]) -> None:
    found = [each for each in warnings_of(*lines, served=BOTH) if each.startswith("TLS on port 443 is refused")]
    assert len(found) == 1
    assert not [each for each in warnings_of(*lines, served=Served((80, 8080))) if "TLS" in each]


@pytest.mark.parametrize("line", ["sni=a", "alpn=h2", "port=443", "client=::/0", "octets=^\\x16"])
def test_port_of_tls_a_rule_takes_some_nothing_is_said_of_refusal(line: str) -> None:
    assert not [each for each in warnings_of(line, ".*", served=BOTH) if "is refused" in each]


def test_pattern_of_a_port_that_takes_too_long_is_none_of_that_port() -> None:
    class Slow:
        def search(self, octets: bytes, /, *, timeout: float | None = None, partial: bool = False) -> None:
            raise TimeoutError

        def fullmatch(self, octets: bytes, /, *, timeout: float | None = None) -> None:
            assert timeout is not None
            raise TimeoutError

    assert not _is_port(Slow(), 80)
