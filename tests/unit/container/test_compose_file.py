"""docker-compose.yml as a text: what must and must not stand in it."""

from __future__ import annotations

import re
from pathlib import Path

from tcpha.config import FrontEndConfig, load_back_end, load_front_end
from tcpha.container.settings import configuration_of
from tcpha.rule_text import parse_rule
from tests.compose.cluster import CLIENT, VIP

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
LINES = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]


def test_file_asks_for_no_more_rights_than_documented() -> None:
    given = [line.strip() for line in LINES if "cap_add" in line]
    documented = re.search(r"(?m)^    (cap_add: .+)$", (ROOT / "docs/containers.md").read_text())
    assert documented is not None
    assert given == [documented[1]]
    assert len([line for line in LINES if line.strip() == "cap_drop: [ALL]"]) == 2
    assert not [line for line in LINES if re.search(r"privileged:|network_mode|pid:|internal|enable_icc", line)]


def test_file_has_only_what_both_versions_of_compose_take() -> None:
    top = [line.partition(":")[0] for line in LINES if re.match(r"[a-z]", line)]
    assert [name for name in top if not name.startswith("x-")] == ["services", "networks", "volumes"]
    assert not [line for line in LINES if "start_interval" in line]


def test_one_service_builds_the_image_others_come_after_it_and_nobody_fetches_one() -> None:
    services = re.split(r"(?m)^  (\w+):$", TEXT.partition("\nservices:\n")[2].partition("\nnetworks:\n")[0])
    built = [name for name, text in zip(services[1::2], services[2::2], strict=True) if "build: ." in text]
    assert built == ["fe"]
    assert "build:" not in TEXT.partition("\nservices:\n")[0]
    assert (
        TEXT.count("image: tcpha\n")
        == len(re.findall(r"image: tcpha\n(?:  +#.+\n)?  +pull_policy: never\n", TEXT))
        == 2
    )
    assert "  depends_on: [fe]\n" in TEXT.partition("x-backend: ")[2].partition("\nservices:\n")[0]
    assert "fe: {condition: service_healthy}" in services[-1]


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


def node_that_answers(target: str) -> str:
    rules = [parse_rule(line.strip()) for line in variables("198.18.36.23")["TCPHA_RULES"].splitlines()]
    first = next(rule for rule in rules if rule.pattern is not None and re.search(rule.pattern, target))
    return {"198.18.36.33": "be1", "198.18.36.38": "be2"}[str(first.servers[0])]


def test_clients_health_check_asks_every_back_end() -> None:
    [check] = re.findall(r'test: \["CMD", "curl", ([^]]+)\]', TEXT)
    assert '"--fail-early"' in check, "else only the last answer counts"
    targets = re.findall(r"http://198\.18\.36\.36(/[^\"]+)", check)
    assert [node_that_answers(target) for target in targets] == ["be1", "be2"]


def test_files_comment_tells_requests_that_the_rules_send_where_it_says() -> None:

    told = re.findall(r"curl -i http://198\.18\.36\.36(/\S+) +answered by (be\d)", TEXT)
    assert len(told) == 2
    for target, node in told:
        assert node_that_answers(target) == node
