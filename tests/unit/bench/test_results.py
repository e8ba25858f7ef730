"""bench/results.json, the table and the picture, made of samples."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from bench import picture, report, results
from bench.contenders import CONTENDERS, DIRECT, HAPROXY
from bench.figures import Counted, derive
from bench.noise import Observation
from bench.results import Named, Results, Sample

ROUNDS = (1, 2, 3)
RATES = {DIRECT: 1000.0, HAPROXY: 500.0, "tcpha": 300.0}


def sample(number: int, workload: str, contender: str, factor: float = 1.0) -> Sample:
    cpu_s = {} if contender == DIRECT else {"fe": 0.03, "be": 0.04} if contender == "tcpha" else {"proxy": 0.05}
    requests = round(RATES[contender] * factor)
    counted = Counted(1.0, requests, 0, requests * 1000, cpu_s, 0.5, 0.0, 0.5, 2.0, 100, {"p99_ms": 1.0})
    return Sample(round=number, workload=workload, contender=contender, figures=derive(counted))


def composed(samples: list[Sample], *, foreign_share: float = 0.0) -> Results:
    return results.compose(
        made="2026-01-02",
        quick=True,
        rounds=len(ROUNDS),
        machine={"processor": "a processor", "processors": 2, "linux": "6.1"},
        contenders=[each for each in CONTENDERS if each.key in RATES],
        workloads=[Named(key="close", title="new connections"), Named(key="download", title="10 MB")],
        samples=samples,
        observations=[Observation(number, 0.5, foreign_share, 0.0) for number in ROUNDS],
    )


@pytest.fixture
def found() -> Results:
    return composed(
        [sample(number, workload, who) for number in ROUNDS for workload in ("close", "download") for who in RATES]
    )


def test_ratios_and_costs_are_plain_numbers(found: Results) -> None:
    assert found.ratios["close_vs_haproxy"] == pytest.approx(0.6)
    assert found.ratios["close_vs_direct"] == pytest.approx(0.3)
    assert found.ratios["download_vs_haproxy"] == pytest.approx(0.6)
    assert found.ratios["download_cpu_vs_haproxy"] == pytest.approx(0.07 / 0.3 / (0.05 / 0.5))
    assert found.cost["fe_us_per_connection"] == pytest.approx(100)
    assert found.cost["be_s_per_gb"] == pytest.approx(0.04 / 0.0003)
    assert found.noise.is_quiet


def test_floors_say_whether_they_hold(found: Results) -> None:
    verdicts = {floor.key: floor.verdict for floor in found.floors}
    assert verdicts["close_vs_haproxy"] == "holds"
    assert verdicts["download_vs_haproxy"] == "does not hold"
    assert "keepalive_vs_haproxy" not in verdicts


def test_rounds_on_both_sides_of_a_floor_are_too_noisy_to_tell() -> None:
    samples = [
        sample(number, "close", who, 0.5 if who == "tcpha" and number == 1 else 1.0)
        for number in ROUNDS
        for who in RATES
    ]
    verdicts = {floor.key: floor.verdict for floor in composed(samples).floors}
    assert verdicts["close_vs_haproxy"] == "too noisy to tell"


def test_file_is_read_as_it_was_written(found: Results, tmp_path: Path) -> None:
    results.write(found, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == found


def test_file_with_an_unknown_key_is_no_results() -> None:
    with pytest.raises(ValidationError, match="unknown"):
        Results.model_validate({"unknown": 1})


def test_table_has_a_row_for_everybody_and_tells_the_roles_apart(found: Results) -> None:
    text = report.markdown(found)
    assert "| direct | 1,000 |" in text
    assert "233 [100 + 133]" in text
    assert "(`close_vs_haproxy`) | 0.60 (0.60 to 0.60) | at least 0.5 | holds |" in text
    assert "(`close_vs_direct`) | 0.30 (0.30 to 0.30) |  |  |" in text
    assert "keep-alive" not in text
    assert "The machine was quiet." in text


def test_noisy_machine_is_told_first_of_all_verdicts() -> None:
    samples = [sample(number, "close", who) for number in ROUNDS for who in RATES]
    found = composed(samples, foreign_share=0.8)
    assert not found.noise.is_quiet
    text = report.markdown(found)
    assert text.index("**The machine was too noisy") < text.index("others used 80%") < text.index("| direct |")
    rates = [line for line in text.splitlines() if "_vs_" in line and " at least " in line]
    assert [line for line in rates if "| too noisy to tell |" in line] == rates != []
    assert not [line for line in rates if "| holds |" in line or "| does not hold |" in line]
    # Processor time is counted by process.
    assert "(`fe_us_per_connection`) | 100 (100 to 100) | at most 110 | holds |" in text
    assert "too noisy to tell" in picture.draw(found, frozenset({"tcpha"}), DIRECT)


def test_failed_requests_are_told_of_everybody_who_has_some(found: Results) -> None:
    assert "No request failed." in report.markdown(found)
    failing = [
        each.model_copy(update={"errors": 2}) if each.contender == HAPROXY and each.round == 1 else each
        for each in found.samples
    ]
    text = report.markdown(composed(failing))
    assert "- HAProxy: 4 of 3,004 requests failed." in text
    assert text.count("requests failed.") == 1
    assert "No request failed." not in text


def test_picture_has_a_panel_for_every_figure_that_was_measured(found: Results) -> None:
    root = ElementTree.fromstring(picture.draw(found, frozenset({"tcpha"}), DIRECT))
    texts = [node.text or "" for node in root.iter() if node.tag.endswith("}text")]
    titles = [text for text in texts if "is better" in text]
    assert titles[0].startswith("New connections")
    assert not [title for title in titles if "Keep-alive" in title]
    assert texts.count("tcpha") == len(titles)
    widths = [float(node.get("width", "0")) for node in root.iter() if node.tag.endswith("}rect")][1:4]
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.01)
    assert widths[2] / widths[0] == pytest.approx(0.3, abs=0.01)
    # All rounds are alike: the line that reaches from low to high is a point at the end of the bar.
    bar = next(node for node in root.iter() if node.tag.endswith("}rect") and node.get("x"))
    end = float(bar.get("x", "0")) + float(bar.get("width", "0"))
    line = next(node.get("d", "") for node in root.iter() if node.tag.endswith("}path"))
    assert [float(word.strip("MH")) for word in line.split()[::2]] == pytest.approx([end, end], abs=0.1)
