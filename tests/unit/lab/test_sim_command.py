"""`python -m tcpha.lab sim`: options, files of costs and of points, what is said; the document says the same."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench import capacity_page
from tcpha.errors import StartError
from tcpha.lab import capacity_text, measured
from tcpha.lab.__main__ import main
from tcpha.lab.capacity import SMALL_OCTETS
from tcpha.lab.measured import built_in, read_costs, read_scaling
from tcpha.lab.traffic import Load

DOCUMENT = Path(__file__).parents[3] / "docs" / "capacity.md"
SMALL = Load(SMALL_OCTETS)


def medians(**figures: float) -> dict[str, Any]:
    return {name: {"median": value, "low": value, "high": value} for name, value in figures.items()}


def balancer(us: float, s_per_gb: float) -> dict[str, Any]:
    """Figures of HAProxy, and of an engine whose front end has a quarter of them."""
    found = {"cpu_us_per_request": us, "cpu_us_per_request_fe": us / 4, "cpu_us_per_request_be": us * 3 / 4}
    found |= {"cpu_s_per_gb": s_per_gb, "cpu_s_per_gb_fe": s_per_gb / 4, "cpu_s_per_gb_be": s_per_gb * 3 / 4}
    return medians(**found)


def results(*, servers: bool = True) -> dict[str, Any]:
    told = {"servers_us_per_request": 30.0, "servers_s_per_gb": 0.3} if servers else {}
    figures = {
        workload: {
            "direct": medians(lab_us_per_request=us, lab_s=2.0, payload_octets=2e9, **told),
            "haproxy": balancer(2 * us, 4.0),
            "tcpha": balancer(8 * us, 2.0),
        }
        for workload, us in {"close": 100.0, "keepalive": 40.0, "download": 9000.0}.items()
    }
    return {"schema_version": 1, "made": "2026-01-02", "noise": {"is_quiet": True}, "figures": figures, "cost": {}}


def scaling(**changed: Any) -> dict[str, Any]:
    points = [
        {
            "backends": number,
            "requests_per_s": 2000.0,
            "low_per_s": 1900.0,
            "high_per_s": 2100.0,
            "fe_us": 200.0,
            "agents_us": 600.0 + extra,
            "servers_us": 30.0,
            "lab_us": 900.0 + extra,
            "cores_left": 2.0,
        }
        for number, extra in ((1, 0.0), (4, 90.0))
    ]
    return {
        "schema_version": 1,
        "made": "2026-01-02",
        "command": "python -m bench.scaling",
        "machine": {"processors": 2},
        "cores": 2,
        "rounds": 5,
        "is_quiet": True,
        "reasons": [],
        "points": points,
        **changed,
    }


def written(directory: Path, content: object) -> Path:
    file = directory / "file.json"
    file.write_text(json.dumps(content))
    return file


# Options


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--backends", "0"], "'0' is no number from 1 to 100000"),
        (["--backends", "two"], "'two' is no number"),
        (["--backends", "1000000000000"], "is no number"),
        (["--object-kb", "-1"], "'-1' is no size: 0 to"),
        (["--object-kb", "nan"], "'nan' is no size"),
        (["--requests-per-connection", "0.5"], "'0.5' requests per connection: 1 or more"),
        (["--link-gbit", "0"], "'0' is no finite number above 0"),
        (["--link-gbit", "inf"], "'inf' is no finite number above 0"),
        (["--link-gbit", "nan"], "'nan' is no finite number above 0"),
        (["--shared-cores", "0"], "'0' is no number"),
    ],
)
def test_value_that_cannot_be_ends_with_2_and_one_line(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["sim", *words])
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--shared-cores", "2", "--link-gbit", "1"], "--shared-cores goes without --link-gbit"),
        (["--measured", "x", "--backends", "2"], "--measured goes without --backends"),
        (["--measured", "x", "--object-kb", "2", "--shared-cores", "2"], "without --object-kb and --shared-cores"),
        (["--costs", "/nowhere/results.json"], "/nowhere/results.json: No such file or directory"),
        (["--costs", ""], "--costs needs the name of a file, or built-in"),
        (["--measured", "/nowhere/scaling.json"], "/nowhere/scaling.json: No such file or directory"),
    ],
)
def test_options_that_exclude_each_other_or_no_file_end_with_2_and_one_line(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sim", *words]) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


# Costs


def test_costs_of_results_are_these() -> None:
    costs = built_in().costs
    small = {name: getattr(costs, name).of_request_s(SMALL) * 1e6 for name in ("front_end", "agent", "proxy", "server")}
    assert small == pytest.approx({"front_end": 192, "agent": 230, "proxy": 56, "server": 25})


def test_costs_of_a_file_are_read_by_contender_role_and_workload(tmp_path: Path) -> None:
    source = read_costs(written(tmp_path, results()))
    costs = source.costs
    assert costs.front_end.of_request_s(SMALL) == pytest.approx(200e-6)
    assert costs.agent.of_request_s(SMALL) == pytest.approx(600e-6)
    assert costs.proxy.of_request_s(SMALL) == pytest.approx(200e-6)
    assert costs.server.of_request_s(SMALL) == pytest.approx(30e-6)
    assert costs.client.of_request_s(SMALL) == pytest.approx(70e-6)
    assert costs.proxy.of_request_s(Load(1e7)) == pytest.approx(0.04)
    assert costs.client.of_request_s(Load(1e7)) == pytest.approx(0.007)
    assert costs.proxy.further_s + costs.proxy.octet_s * SMALL_OCTETS == pytest.approx(80e-6)
    assert source.words.endswith("2026-01-02, a quiet machine")


def test_file_that_does_not_tell_servers_apart_they_have_their_usual_share(tmp_path: Path) -> None:
    source = read_costs(written(tmp_path, results(servers=False)))
    assert source.costs.server.of_request_s(SMALL) == pytest.approx(measured.SERVERS_SHARE * 100e-6)
    assert source.costs.client.of_request_s(SMALL) == pytest.approx((1 - measured.SERVERS_SHARE) * 100e-6)
    assert "servers not told apart there: 40%" in source.words


@pytest.mark.parametrize(
    ("workload", "contender", "name"),
    [
        ("keepalive", "tcpha", "cpu_us_per_request_be"),
        ("close", "haproxy", "cpu_us_per_request"),
        ("download", "direct", "lab_s"),
    ],
)
def test_file_without_a_figure_says_which_and_how_to_get_it(
    tmp_path: Path, workload: str, contender: str, name: str
) -> None:
    content = results()
    del content["figures"][workload][contender][name]
    with pytest.raises(StartError, match=f"no figure {workload} {contender} {name}; python -m bench --quick"):
        read_costs(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "should be an object"),
        ({"schema_version": 2, "made": "", "noise": {"is_quiet": True}, "figures": {}}, "schema_version"),
        ({"schema_version": 1, "made": "", "noise": {"is_quiet": True}}, "figures: Field required"),
    ],
)
def test_file_that_is_no_results_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    with pytest.raises(StartError, match=reason):
        read_costs(written(tmp_path, content))


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartError, match="is no text"):
        read_costs(tmp_path / "x")


def test_negative_cost_is_refused(tmp_path: Path) -> None:
    content = results()
    content["figures"]["close"]["haproxy"]["cpu_us_per_request"]["median"] = -1
    with pytest.raises(StartError, match=r"haproxy\.cpu_us_per_request\.median: it is below 0"):
        read_costs(written(tmp_path, content))


def test_difference_that_is_not_needed_may_be_negative(tmp_path: Path) -> None:
    content = results()
    content["figures"]["flood"] = {"nginx": {"process_us_per_syn": {"median": -0.01}}}
    assert read_costs(written(tmp_path, content)).costs == read_costs(written(tmp_path, results())).costs


def test_results_in_their_place_are_used_unless_built_in_costs_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = []
    for words in ([], ["--costs", "built-in"]):
        (tmp_path / "bench").mkdir(exist_ok=True)
        (tmp_path / "bench" / "results.json").write_text(json.dumps(results()))
        assert main(["sim", *words]) == 0
        said.append(capsys.readouterr().out.splitlines()[0])
    assert said[0].startswith("Costs: bench/results.json, 2026-01-02")
    assert said[1].startswith("Costs: built-in")


def test_results_in_their_place_are_not_complete_built_in_costs_are_used_and_it_is_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = results()
    del content["figures"]["keepalive"]
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "results.json").write_text(json.dumps(content))
    assert main(["sim"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("Costs: built-in")
    assert said.endswith(
        ", for bench/results.json: no figure keepalive tcpha cpu_us_per_request_fe;"
        " python -m bench --quick measures all of it"
    )
    assert main(["sim", "--costs", "bench/results.json"]) == 2


def test_file_of_the_other_command_says_which_option_takes_it(tmp_path: Path) -> None:
    points, costs = tmp_path / "points.json", tmp_path / "costs.json"
    points.write_text(json.dumps(scaling()))
    costs.write_text(json.dumps(results()))
    with pytest.raises(
        StartError, match=r"is no result of python -m bench, but of python -m bench\.scaling: use --meas"
    ):
        read_costs(points)
    with pytest.raises(
        StartError, match=r"is no result of python -m bench\.scaling, but of python -m bench: use --costs"
    ):
        read_scaling(costs)


# What is said


@pytest.mark.parametrize("site", [[], ["--shared-cores", "2"]])
@pytest.mark.parametrize(("kb", "is_doubted"), [("1", False), ("1.1", True), ("9999", True), ("10000", False)])
def test_size_between_the_measured_ones_its_costs_are_doubted_in_one_line(
    kb: str, is_doubted: bool, site: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", "--costs", "built-in", "--object-kb", kb, *site]) == 0
    doubts = [line for line in capsys.readouterr().out.splitlines() if "straight line" in line]
    expected = "Costs between 1 KB and 10 MB are a straight line through these two measured sizes: the real ones are"
    assert len(doubts) == is_doubted
    assert all(line.startswith(expected) for line in doubts)


def test_rates_that_are_hardly_anything_keep_two_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--costs", "built-in", "--object-kb", "1e9", "--link-gbit", "1e-6"]) == 0
    text = capsys.readouterr().out
    assert "0.0" not in re.findall(r"\S+", text)
    assert "at 1.1e-10 requests/s: 0.00011 MB/s" in text


def test_few_back_ends_leave_processors_over_more_of_them_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for number in ("1", "40"):
        words = ["--shared-cores", "2", "--requests-per-connection", "1000", "--object-kb", "100000"]
        assert main(["sim", "--costs", "built-in", *words, "--backends", number]) == 0
        said.append(capsys.readouterr().out.splitlines()[-1])
    assert said[0] == "With 1 back end processors are left over: one thread has no more than one."
    assert said[1].startswith("All processors are busy from 2 back ends on")


def cells(text: str, first: str) -> list[str]:
    """Of the line of a table that begins so."""
    return next(re.split(r" {2,}", line.strip()) for line in text.splitlines() if re.match(rf" *{first}  ", line))


def test_prediction_has_a_row_for_each_back_end_and_says_what_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", "--backends", "5", "--costs", str(written(tmp_path, results()))]) == 0
    text = capsys.readouterr().out
    # Agent 600 us and server 30 us on a core, FE 200 us: 1 / 630 us, then 1 / 200 us from 3.15 back ends on.
    assert cells(text, "1")[:5] == ["1", "1,587", "1.6", "830", "back ends' cores"]
    assert cells(text, "3")[1] == "4,762"
    assert cells(text, "4")[1:5] == ["5,000", "5.0", "830", "FE's core"]
    assert cells(text, "5")[5:] == ["5,000", "5.0", "230", "proxy's core"]
    assert "One front end feeds 3.1 back ends: from 4 back ends on it is the front end that saturates" in text
    assert "HAProxy saturates from 1 back end on (proxy's core), at 5,000 requests/s: 5.0 MB/s." in text
    assert "With 5 back ends: tcpha 5,000 requests/s, HAProxy 5,000 (1 times as many), for 3.6 times" in text
    # Without a body 798 us against 196 us, each KB 1.92 us against 3.98 us.
    assert "FE and agent together need less CPU than HAProxy from answers of 292 KB on." in text


def test_many_back_ends_are_shown_by_powers_of_two() -> None:
    assert capacity_text.shown(12) == list(range(1, 13))
    assert capacity_text.shown(13) == [1, 2, 4, 8, 13]
    assert capacity_text.shown(16) == [1, 2, 4, 8, 16]


def test_shared_cores_bring_no_more_with_further_back_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--shared-cores", "2", "--costs", str(written(tmp_path, results()))]) == 0
    text = capsys.readouterr().out
    # 200 + 600 + 30 + 70 us.
    assert cells(text, "1")[1:4] == ["1,667", "900", "agents' cores"]
    assert cells(text, "4")[1:4] == ["2,222", "900", "the shared cores"]
    assert "All processors are busy from 2 back ends on" in text


def test_measured_points_are_compared_with_what_the_model_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "points").mkdir()
    points = written(tmp_path / "points", scaling())
    assert main(["sim", "--measured", str(points), "--costs", str(written(tmp_path, results()))]) == 0
    text = capsys.readouterr().out
    row = ["1", "2.00", "1,667", "2,000", "-17%", "900", "900", "+0%", "200", "600", "30"]
    assert cells(text, "1") == row
    assert cells(text, "4") == ["4", "2.00", "2,222", "2,000", "+11%", "900", "990", "-9%", "200", "690", "30"]
    assert "Predictions are up to 17% off." in text
    assert "from 1 back end to 4 back ends: +10% (FE +0 us, agents +90 us, servers +0 us)" in text


def test_measured_points_of_a_noisy_machine_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = written(tmp_path, scaling(is_quiet=False, reasons=["others used 50%"]))
    assert main(["sim", "--measured", str(points), "--costs", "built-in"]) == 0
    assert "a machine that was not quiet (others used 50%)" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{"points": []}, {"schema_version": 2}, {"unknown": 1}])
def test_file_that_holds_no_points_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(StartError, match=next(iter(changed))):
        read_scaling(written(tmp_path, scaling(**changed)))


def test_document_shows_what_the_command_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DOCUMENT.parents[1])
    page = DOCUMENT.read_text()

    def say(words: str) -> str:
        assert main(shlex.split(words)) == 0
        return capsys.readouterr().out

    words = capacity_page.examples(page)
    assert len(words) >= 2
    assert all("--costs " in each for each in words)  # else it depends on a file that may be there
    assert capacity_page.refreshed(page, say) == page, "write it again: python -m bench.scaling --draw"
