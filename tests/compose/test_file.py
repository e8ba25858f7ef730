"""docker-compose.yml as a text: what must and must not stand in it. Needs no engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tcpha.config import FrontEndConfig, load_back_end, load_front_end
from tcpha.container.settings import configuration_of
from tcpha.rule_text import parse_rule
from tests.compose.cluster import CLIENT, VIP

pytestmark = pytest.mark.compose

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
LINES = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]


def test_file_asks_for_no_more_rights_than_two_capabilities() -> None:
    given = [line.strip() for line in LINES if "cap_add" in line]
    assert given == ["cap_add: [NET_ADMIN, NET_RAW]"]
    assert not [line for line in LINES if re.search(r"privileged|network_mode|pid:|internal|enable_icc", line)]


def test_file_has_only_what_both_versions_of_compose_take() -> None:
    top = [line.partition(":")[0] for line in LINES if re.match(r"[a-z]", line)]
    assert [name for name in top if not name.startswith("x-")] == ["services", "networks", "volumes"]
    assert not [line for line in LINES if "start_interval" in line]


def test_every_address_is_fixed_in_the_subnet_and_belongs_to_one_node() -> None:
    fixed = re.findall(r"ipv4_address: ([\d.]+)", TEXT)
    assert len(fixed) == len(set(fixed)) == 4
    assert CLIENT in fixed
    assert VIP not in fixed
    assert {address.rpartition(".")[0] for address in (*fixed, VIP)} == {"198.18.36"}
    assert "subnet: 198.18.36.0/24" in TEXT


def variables(raddr: str) -> dict[str, str]:
    """What a node of this address gets, read as plainly as the file is written."""
    text = "\n".join(LINES)
    found = dict(re.findall(r"(?m)^ +(TCPHA_\w+): ([^|&\n]+)$", text))
    rules = re.search(r"TCPHA_RULES: \|-\n((?: {4}.+\n)+)", text)
    assert rules is not None
    found["TCPHA_RULES"] = rules[1].replace("$$", "$")
    return found | {"TCPHA_RADDR": raddr}


def test_nodes_agree_and_nothing_is_warned_of(tmp_path: Path) -> None:
    digests = set()
    for raddr in ("198.18.36.23", "198.18.36.33", "198.18.36.38"):
        given = variables(raddr)
        role = "fe" if raddr.endswith(".23") else "be"
        own = {name: value for name, value in given.items() if role == "be" or name not in ("TCPHA_FE", "TCPHA_UADDR")}
        own["TCPHA_MAKE_SECRET"] = "yes"
        file = tmp_path / "tcpha.conf"
        file.write_text(configuration_of("fe" if role == "fe" else "be", own).text)
        config = load_front_end(file) if role == "fe" else load_back_end(file)
        assert config.warnings() == ()
        assert isinstance(config, FrontEndConfig) == (role == "fe")
        digests.add(config.digest())
    assert len(digests) == 1


def test_files_comment_tells_requests_that_the_rules_send_where_it_says() -> None:

    told = re.findall(r"curl -i http://198\.18\.36\.36(/\S+) +answered by (be\d)", TEXT)
    node_of = {"198.18.36.33": "be1", "198.18.36.38": "be2"}
    assert len(told) == 2
    for target, node in told:
        rules = [parse_rule(line.strip()) for line in variables("198.18.36.23")["TCPHA_RULES"].splitlines()]
        first = next(rule for rule in rules if rule.pattern is not None and re.search(rule.pattern, target))
        assert node_of[str(first.servers[0])] == node
