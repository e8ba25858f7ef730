"""tcpha with several back ends: what is asked, what is written down, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest

from bench import capacity_page, curves, measuring, output, scaling
from bench.arena import Arena, Stand
from bench.contenders import node_by_rules, spread_over
from bench.curves import powers_of_ten, ticks
from bench.measuring import Measured
from bench.noise import Observation
from bench.workloads import OneAfterTheOther, Workload
from tcpha.lab.capacity import SMALL_OCTETS
from tcpha.lab.measured import Scaling, built_in, read_scaling
from tcpha.lab.traffic import Load

FIGURES = {
    "requests_per_s": 2000.0,
    "cpu_us_per_request_fe": 200.0,
    "cpu_us_per_request_be": 300.0,
    "servers_us_per_request": 30.0,
    "lab_us_per_request": 600.0,
    "foreign_share": 0.05,
}


def window(**changed: float) -> Measured:
    return Measured({**FIGURES, **changed})


def composed(foreign_share: float = 0.05) -> Scaling:
    windows = {
        4: [window(foreign_share=foreign_share)],
        1: [window(requests_per_s=rate) for rate in (1000, 3000, 1500)],
    }
    outcome = scaling.Outcome(windows, [Observation(1, 0.1, 0.0, 0.0)])
    return scaling.compose(outcome, {"processors": 2}, 2, "2026-01-02", "python -m bench.scaling")


def test_documents_are_spread_one_to_each_back_end() -> None:
    contender = spread_over(12)
    assert [contender.node_for(f"/spread/{number}") for number in range(1, 13)] == [f"be{n}" for n in range(1, 13)]
    assert contender.node_for("/1k.html") == "be1"
    lines = [line for line in contender.settings.both if line.startswith("rule = ")]
    assert len(lines) == len(contender.rules) == 12
    assert dict(contender.roles[1].daemons).keys() == {f"be{number}" for number in range(1, 13)}


def test_one_back_end_has_one_rule() -> None:
    assert spread_over(1).rules == ((".*", "be1"),)
    assert node_by_rules("/spread/7", spread_over(1).rules) == "be1"


def test_point_is_the_median_of_its_windows() -> None:
    first, last = composed().points
    assert (first.backends, last.backends) == (1, 4)
    assert (first.requests_per_s, first.low_per_s, first.high_per_s) == (1500, 1000, 3000)
    assert (first.fe_us, first.agents_us, first.servers_us, first.lab_us) == (200, 300, 30, 600)
    assert first.cores_left == pytest.approx(1.9)


@pytest.mark.parametrize(("foreign_share", "is_quiet"), [(0.05, True), (0.5, False)])
def test_others_that_used_the_processors_are_told(foreign_share: float, is_quiet: bool) -> None:
    found = composed(foreign_share)
    assert found.is_quiet is is_quiet
    assert ("of its processors in 1 of 4 windows" in " ".join(found.reasons)) is not is_quiet


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "scaling.json").write_text(composed().model_dump_json())
    assert read_scaling(tmp_path / "scaling.json") == composed()


class Listed:
    """Stands in for a lab."""

    def __init__(self, backends: int) -> None:
        self.contenders = (spread_over(backends),)

    def empty_logs(self) -> None:
        pass

    def stand(self, contender: object) -> object:
        return contender


def test_rounds_take_every_number_of_back_ends_in_turn_with_as_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def work(stand: Stand, workload: Workload, seconds: int, warm_up_s: int) -> Measured:
        asked.append((stand.key, workload.offer))  # type: ignore[attr-defined]
        return Measured({**FIGURES, "requests_per_s": float(seconds + warm_up_s)}, wrong=("lies",))

    monkeypatch.setattr(measuring, "work", work)
    monkeypatch.setattr(scaling, "observe", lambda number, _say: Observation(number, 0.0, 0.0, 0.0))
    arenas = {number: cast(Arena, Listed(number)) for number in (1, 3)}
    outcome = scaling.run(arenas, 2, 3, lambda _text: None)
    expected = [(f"tcpha_{number}", OneAfterTheOther(scaling.CONNECTIONS, number)) for number in (1, 3)]
    assert asked == expected * 2
    assert {number: len(found) for number, found in outcome.windows.items()} == {1: 2, 3: 2}
    assert outcome.wrong == ["back ends: 1: lies"] * 2 + ["back ends: 3: lies"] * 2


# The picture


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")]


def test_picture_has_measured_points_only_if_there_are_some() -> None:
    without, with_points = texts(curves.draw(built_in(), None)), texts(curves.draw(built_in(), composed()))
    assert "measured" not in without
    assert "No points were measured." in without
    assert with_points.count("measured") == 1
    assert with_points.count("tcpha") == without.count("tcpha") == 3
    assert any("median of 1 round of 2026-01-02" in words and "a quiet machine" in words for words in with_points)


def test_picture_of_points_of_a_noisy_machine_says_so() -> None:
    assert any("the machine was not quiet" in words for words in texts(curves.draw(built_in(), composed(0.5))))


def test_curve_reaches_the_place_of_its_value() -> None:
    root = ElementTree.fromstring(curves.draw(built_in(), None))
    panel = next(node for node in root if node.tag.endswith("}g"))
    lines = [node.get("d", "") for node in panel if node.tag.endswith("}path") and node.get("fill") == "none"]
    ours, theirs = ([float(place.split()[1]) for place in line.strip("M").split(" L")] for line in lines)
    # With 8 back ends the front end's core is the limit, with HAProxy its core from the first one on.
    costs, small = built_in().costs, Load(SMALL_OCTETS)
    ours_per_s, theirs_per_s = (1 / each.of_request_s(small) for each in (costs.front_end, costs.proxy))
    height, end_per_s = 210 - 44 - 34, ticks(theirs_per_s)[-1]
    assert ours[-1] < ours[0]
    assert 210 - 34 - ours[-1] == pytest.approx(height * ours_per_s / end_per_s, abs=0.2)
    assert 210 - 34 - theirs[0] == pytest.approx(height * theirs_per_s / end_per_s, abs=0.2)


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (4.0, [0, 1, 2, 3, 4]),
        (17_857.0, [0, 5000, 10_000, 15_000, 20_000]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (1.0, [0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_enclose_everything(highest: float, expected: list[float]) -> None:
    assert ticks(highest) == pytest.approx(expected)


def test_powers_of_ten_enclose_both() -> None:
    assert powers_of_ten(81, 40_900) == pytest.approx([10, 100, 1000, 10_000, 100_000])
    assert powers_of_ten(10, 10) == pytest.approx([10, 100])


# The page


def test_examples_of_a_page_are_said_again_and_nothing_else_changes() -> None:
    page = "Text\n\n    $ python -m tcpha.lab sim --x\n    old\n\n    older\n\nMore\n\n    other\n"
    assert capacity_page.examples(page) == ["sim --x"]
    said = "Text\n\n    $ python -m tcpha.lab sim --x\n    new sim --x\n\n    end\n\nMore\n\n    other\n"
    assert capacity_page.refreshed(page, lambda words: f"new {words}\n\nend\n") == said


# The command


def test_only_drawing_needs_no_lab_and_writes_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "capacity.svg"
    monkeypatch.setattr(scaling, "RESULTS", tmp_path / "none.json")
    assert scaling.main(["--draw", "--costs", "built-in", "--picture", str(picture)]) == 0
    assert picture.read_text() == curves.draw(built_in(), None)


def test_points_that_cannot_be_read_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scaling.json").write_text("{}")
    words = ["--draw", "--costs", "built-in", "--measured", str(tmp_path / "scaling.json")]
    assert scaling.main([*words, "--picture", str(tmp_path / "x.svg")]) == 2
    assert "scaling.json: made: Field required" in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()


def files_of(*words: str) -> scaling.Files:
    return scaling.files_of(scaling._parser().parse_args(words))


def test_usual_run_is_written_to_the_tracked_files() -> None:
    assert files_of() == scaling.Files(scaling.RESULTS, scaling.PICTURE)
    assert files_of("--draw") == scaling.Files(scaling.RESULTS, scaling.PICTURE)


@pytest.mark.parametrize("words", [["--backends", "1"], ["--rounds", "1"], ["--seconds", "1"]])
def test_run_of_another_size_leaves_the_tracked_files_alone(words: list[str]) -> None:
    assert files_of(*words) == scaling.Files(output.PARTIAL / "scaling.json", output.PARTIAL / "capacity.svg")


def test_picture_of_other_points_is_beside_them(tmp_path: Path) -> None:
    assert files_of("--measured", str(tmp_path / "x.json")).picture == tmp_path / "capacity.svg"


def test_drawing_of_points_that_are_not_there_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--draw", "--costs", "built-in", "--measured", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_drawing_with_a_size_of_a_run_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--draw", "--rounds", "1"]) == 2
    assert "--draw goes without" in capsys.readouterr().err


def test_points_could_not_be_written_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.scaling.cluster.obstacle", lambda: None)
    monkeypatch.setattr(scaling, "obstacle", lambda _contenders: None)
    monkeypatch.setattr(scaling, "Arena", None)
    (tmp_path / "file").touch()
    assert scaling.main(["--costs", "built-in", "--measured", str(tmp_path / "file" / "x.json")]) == 2
    assert "x.json cannot be written" in capsys.readouterr().err
