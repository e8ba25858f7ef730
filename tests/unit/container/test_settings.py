"""Variables -> configuration: what they may say, and which one is named when it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.config import load_back_end, load_front_end
from tcpha.container import settings
from tcpha.container.settings import MODELS, Generated, Role, configuration_of, is_yes, variable_of, with_secret
from tcpha.errors import ConfigError

VARIABLES = {
    "TCPHA_RADDR": "192.0.2.23",
    "TCPHA_VADDR": "192.0.2.36",
    "TCPHA_SERVERS": "192.0.2.33, 192.0.2.38",
    "TCPHA_RULES": "192.0.2.38 jpg$\n192.0.2.33 .*",
}
ROLES: tuple[Role, ...] = ("fe", "be")


def lines(generated: Generated) -> list[str]:
    return [line for line in generated.text.splitlines() if not line.startswith("#")]


def fault(role: Role, environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        configuration_of(role, environment)
    return str(caught.value)


def fault_of_value(tmp_path: Path, environment: dict[str, str]) -> str:
    """What is said when the values are looked at."""
    generated = configuration_of("fe", environment)
    file = tmp_path / "tcphafe.conf"
    file.write_text(generated.text)
    with pytest.raises(ConfigError) as caught:
        load_front_end(file)
    return str(generated.located(caught.value))


def test_variables_are_complete_they_make_a_configuration_that_loads(tmp_path: Path) -> None:
    file = tmp_path / "tcpha.conf"
    file.write_text(configuration_of("fe", VARIABLES).text)
    config = load_front_end(file)
    assert [str(server.addr) for server in config.server] == ["192.0.2.33", "192.0.2.38"]
    assert [server.port for server in config.server] == [666, 666]
    assert [rule.pattern for rule in config.rule] == ["jpg$", ".*"]
    assert config.warnings() == ()


def test_back_end_has_its_own_keys(tmp_path: Path) -> None:
    further = {"TCPHA_RADDR": "192.0.2.33", "TCPHA_FE": "192.0.2.23 7666", "TCPHA_UADDR": "192.0.2.37"}
    file = tmp_path / "tcpha.conf"
    file.write_text(configuration_of("be", VARIABLES | further).text)
    config = load_back_end(file)
    assert [(str(fe.addr), fe.port) for fe in config.fe] == [("192.0.2.23", 7666)]
    assert [str(addr) for addr in config.uaddr] == ["192.0.2.37"]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("192.0.2.33", ["192.0.2.33 666"]),
        ("192.0.2.33 7666", ["192.0.2.33 7666"]),
        ("192.0.2.33 weight=3", ["192.0.2.33 666 weight=3"]),
        ("192.0.2.33 7666 weight=3", ["192.0.2.33 7666 weight=3"]),
        (" 192.0.2.33,192.0.2.38 ,\n\n fd00::1\n", ["192.0.2.33 666", "192.0.2.38 666", "fd00::1 666"]),
    ],
)
def test_servers_may_be_written_in_many_ways(value: str, wanted: list[str]) -> None:
    found = lines(configuration_of("fe", VARIABLES | {"TCPHA_SERVERS": value}))
    assert [line for line in found if line.startswith("server")] == [f"server = {each}" for each in wanted]


def test_rule_has_commas_blanks_and_signs_it_stays_as_it_is() -> None:
    rule = "192.0.2.33,192.0.2.38 balance=least path=^/a{1,2}#b query=x=y"
    assert f"rule = {rule}" in lines(configuration_of("fe", VARIABLES | {"TCPHA_RULES": f"  {rule}  "}))


@pytest.mark.parametrize("value", ["", "  ", "\n"])
def test_variable_is_empty_it_is_as_if_it_were_not_set(value: str) -> None:
    assert configuration_of("fe", VARIABLES | {"TCPHA_MSS": value}) == configuration_of("fe", VARIABLES)
    assert fault("fe", VARIABLES | {"TCPHA_VADDR": value}).startswith("TCPHA_VADDR: not set")


def test_other_variables_are_none_of_ours() -> None:
    others = {"PATH": "/bin", "TCPH": "x", "tcpha_mss": "x"}
    assert configuration_of("fe", VARIABLES | others) == configuration_of("fe", VARIABLES)


def test_variables_of_the_container_make_no_line() -> None:
    apart = {settings.CONFIG: "/x", settings.MAKE_SECRET: "yes", settings.SERVER_USER: "nobody"}
    assert configuration_of("fe", VARIABLES | apart) == configuration_of("fe", VARIABLES)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TCPHA_RULE", "no such variable: did you mean TCPHA_RULES?"),
        ("TCPHA_VADR", "no such variable: did you mean TCPHA_VADDR?"),
        ("TCPHA_SERVER_USR", "no such variable: did you mean TCPHA_SERVER_USER?"),
        ("TCPHA_XYZZY", "no such variable"),
        ("TCPHA_UADDR", "is for a back end only"),
    ],
)
def test_variable_is_not_known_it_is_named_with_what_was_meant(name: str, said: str) -> None:
    assert fault("fe", VARIABLES | {name: "1"}) == f"{name}: {said}"


def test_variable_of_a_front_end_is_not_a_back_ends() -> None:
    environment = VARIABLES | {"TCPHA_FE": "192.0.2.23", "TCPHA_FORWARD": "tunnel"}
    assert fault("be", environment) == "TCPHA_FORWARD: is for a front end only"


@pytest.mark.parametrize("role", ROLES)
def test_secret_itself_is_in_the_environment_it_is_refused_and_never_shown(role: Role) -> None:
    secret = "ab" * 32
    said = fault(role, VARIABLES | {"TCPHA_FE": "192.0.2.23", "TCPHA_SECRET": secret})
    assert said.startswith("TCPHA_SECRET: a secret is never taken from the environment")
    assert secret not in said
    with pytest.raises(ConfigError, match="TCPHA_SECRET: "):
        settings.refuse_both({"TCPHA_SECRET": secret}, "/etc/tcpha/tcphafe.conf")


@pytest.mark.parametrize("missing", ["TCPHA_RADDR", "TCPHA_VADDR", "TCPHA_SERVERS", "TCPHA_RULES"])
def test_required_variable_is_missing_it_is_named(missing: str) -> None:
    environment = {name: value for name, value in VARIABLES.items() if name != missing}
    assert fault("fe", environment) == f"{missing}: not set; needed, unless a tcphafe.conf is mounted"


def test_key_that_may_not_repeat_has_two_lines_the_second_is_named() -> None:
    assert fault("fe", VARIABLES | {"TCPHA_MSS": "1460\n1400"}) == "TCPHA_MSS:2: one value only"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"TCPHA_VADDR": "192.0.2.36,\n192.0.2"}, "TCPHA_VADDR:2: '192.0.2' is no IPv4 or IPv6 address"),
        ({"TCPHA_MSS": "9999"}, "TCPHA_MSS:1: '9999' is more than 8960, the most allowed"),
        ({"TCPHA_SERVERS": "192.0.2.33, 192.0.2.38 0"}, "TCPHA_SERVERS:1: port '0' is not in 1..65535"),
        ({"TCPHA_DEAD_TIME": "20ms"}, "TCPHA_DEAD_TIME:1: "),
    ],
)
def test_value_does_not_fit_variable_and_line_are_named(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    assert fault_of_value(tmp_path, VARIABLES | changed).startswith(said)


@pytest.mark.parametrize(("indent", "column"), [("", 15), ("  ", 17)])
def test_rule_does_not_fit_the_column_is_that_in_the_variable(tmp_path: Path, indent: str, column: int) -> None:
    said = fault_of_value(tmp_path, VARIABLES | {"TCPHA_RULES": f"192.0.2.33 .*\n{indent}192.0.2.33 a(b"})
    assert said == f"TCPHA_RULES:2: bad pattern: missing ) (column {column})"


def test_fault_is_of_no_line_the_environment_is_named() -> None:
    assert str(Generated("", ()).located(ConfigError("/x", None, "y"))) == "environment: y"


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), st.text(max_size=40)), st.sampled_from(ROLES))
def test_values_are_anything_each_line_of_the_text_has_an_origin(changed: dict[str, str], role: Role) -> None:
    try:
        generated = configuration_of(role, VARIABLES | {"TCPHA_FE": "x", "TCPHA_UADDR": "y"} | changed)
    except ConfigError as error:
        assert str(error.file) in {*VARIABLES, "TCPHA_FE"}  # noqa: PT017  # anything else is a defect
        return
    assert generated.text.count("\n") == len(generated.origins)
    for line, origin in zip(generated.text.split("\n")[1:], generated.origins[1:], strict=False):
        assert origin is not None
        assert line.startswith(f"{origin.key} = ")


@pytest.mark.parametrize("role", ROLES)
def test_every_key_has_one_variable_and_none_is_one_of_the_containers(role: Role) -> None:
    names = [variable_of(key) for key in MODELS[role].model_fields]
    assert len(set(names)) == len(names)
    assert not {settings.CONFIG, settings.MAKE_SECRET, settings.SERVER_USER, settings.SECRET} & set(names)


def test_file_is_mounted_and_variables_say_something_too_one_of_them_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^TCPHA_MSS: is set, but there is /etc/x as well"):
        settings.refuse_both({"TCPHA_MSS": "1", "TCPHA_VADDR": "y"}, "/etc/x")
    settings.refuse_both({"TCPHA_SECRET_FILE": "/run/secrets/tcpha", "TCPHA_MSS": "", "PATH": "x"}, "/etc/x")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "secret = /s\n"),
        ("mss = 1", "mss = 1\nsecret = /s\n"),
        ("a = b\n", "a = b\nsecret = /s\n"),
        (" secret =\t/old # x\nmss = 1\n", "secret = /s\nmss = 1\n"),
        ("#secret = /old\nsecrets = x\n", "#secret = /old\nsecrets = x\nsecret = /s\n"),
        ("rule = 192.0.2.33 secret = x\n", "rule = 192.0.2.33 secret = x\nsecret = /s\n"),
    ],
)
def test_secret_is_elsewhere_the_text_says_so_and_keeps_its_lines(text: str, wanted: str) -> None:
    assert with_secret(text, "/s") == wanted


def test_switch_is_neither_yes_nor_no_it_is_named() -> None:
    assert [is_yes({"X": value}, "X") for value in ("", "yes", "On", "no", "false")] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert not is_yes({}, "X")
    with pytest.raises(ConfigError, match=r"^X: 'maybe' is neither yes nor no$"):
        is_yes({"X": "maybe"}, "X")
