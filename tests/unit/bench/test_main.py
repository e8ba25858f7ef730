"""The command: its exit status, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from bench import __main__ as command
from bench import output, picture, report, results
from bench.measuring import MeasuringError
from bench.results import Sample
from bench.rounds import Outcome
from bench.workloads import SITE_DOCUMENTS
from tcpha.lab.interruption import Interrupted

MACHINE = {"processors": 2, "documents_in_memory": True}


class Standing:
    """Stands in for the labs."""

    serves_from_memory = True
    documents = 0

    def __init__(self, _name: str, _contenders: object) -> None:
        Standing.documents = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None: ...

    def up(self) -> None: ...

    def down(self) -> None: ...

    def add_documents(self, contents: dict[str, bytes]) -> None:
        Standing.documents += len(contents)


def sample(*wrong: str) -> Sample:
    figures = {"requests_per_s": 10.0, "requests": 10.0, "cpu_us_per_request_fe": 5.0}
    return Sample(round=1, workload="close", contender="tcpha", figures=figures, wrong=list(wrong))


def main(
    directory: Path, monkeypatch: pytest.MonkeyPatch, samples: list[Sample], error: BaseException | None, *words: str
) -> int:
    def run(_arena: object, _programme: object, outcome: Outcome, _say: object) -> None:
        outcome.samples.extend(samples)
        if error is not None:
            raise error

    monkeypatch.setattr("bench.__main__.cluster.obstacle", lambda: None)
    monkeypatch.setattr(command, "obstacle", lambda _contenders: None)
    monkeypatch.setattr(command, "raise_on_signals", lambda: None)
    monkeypatch.setattr(command, "Arena", Standing)
    monkeypatch.setattr(command, "describe_machine", lambda in_memory: dict(MACHINE))
    monkeypatch.setattr(command, "the_site", lambda: SimpleNamespace(sizes_octets=[1] * SITE_DOCUMENTS))
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr("bench.leavings.remove", lambda _say: None)
    return command.main(["--output", str(directory), "--quick", *words])


def test_every_answer_is_right_status_0_and_no_partial_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / command.PARTIAL).write_text("of an earlier run")
    assert main(tmp_path, monkeypatch, [sample()], None) == 0
    found = results.read(tmp_path / "results.json")
    assert [each.contender for each in found.samples] == ["tcpha"]
    assert found.machine["processors"] == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.json", "results.md", "results.svg"]


def test_one_wrong_answer_of_a_sample_status_1_and_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path, monkeypatch, [sample(), sample("/1k.html: other octets")], None) == 1
    assert "bench: wrong answer: tcpha, close: /1k.html: other octets" in capsys.readouterr().err


def test_something_fails_what_was_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path, monkeypatch, [sample(), sample()], MeasuringError("nginx is gone")) == 1
    assert len(results.read(tmp_path / command.PARTIAL).samples) == 2
    assert not (tmp_path / "results.json").exists()
    said = capsys.readouterr().err
    assert "could not measure: nginx is gone" in said
    assert f"the 2 windows before that are in {tmp_path / command.PARTIAL}" in said


def test_the_first_window_fails_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(tmp_path, monkeypatch, [], MeasuringError("nginx is gone")) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("workload", "documents"), [("close", 0), ("mixed", SITE_DOCUMENTS)])
def test_site_is_only_written_for_who_asks_for_it(
    workload: str, documents: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(tmp_path, monkeypatch, [sample()], None, "--workloads", workload) == 0
    assert Standing.documents == documents


# Where results go


def test_run_of_everything_goes_to_the_place_of_complete_results() -> None:
    assert command.directory_of(command._parser().parse_args([])) == output.FULL
    assert command.directory_of(command._parser().parse_args(["--quick"])) == output.FULL


@pytest.mark.parametrize(
    "words", [["--workloads", "close"], ["--contenders", "direct"], ["--quick", "--workloads", "idle"]]
)
def test_run_of_only_some_goes_to_a_place_of_its_own(words: list[str], tmp_path: Path) -> None:
    assert command.directory_of(command._parser().parse_args(words)) == output.PARTIAL
    assert command.directory_of(command._parser().parse_args([*words, "--output", str(tmp_path)])) == tmp_path


def test_directory_cannot_be_written_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(tmp_path / "file", monkeypatch, [sample()], AssertionError("it was measured")) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: ")
    assert "file/results.json cannot be written" in said
    assert said.count("\n") == 1


def test_results_are_a_directory_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.md").mkdir()
    assert main(tmp_path, monkeypatch, [sample()], AssertionError("it was measured")) == 2


def test_interruption_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(tmp_path, monkeypatch, [sample()], Interrupted(3)) == 131
    assert len(results.read(tmp_path / command.PARTIAL).samples) == 1


@pytest.mark.parametrize(("is_quick", "kept"), [(False, True), (True, False)])
def test_quick_run_finds_results_only_those_of_a_full_run_are_kept(
    is_quick: bool, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(tmp_path, monkeypatch, [sample(), sample()], None) == 0
    before = results.read(tmp_path / "results.json").model_copy(update={"quick": is_quick})
    results.write(before, tmp_path / "results.json")
    assert main(tmp_path, monkeypatch, [sample()], None) == 0
    assert len(results.read(tmp_path / "results.json").samples) == 1
    assert (tmp_path / command.FULL).exists() is kept
    if kept:
        assert results.read(tmp_path / command.FULL) == before


def test_value_that_cannot_be_ends_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        command.main(["--rounds", "x"])
    assert ending.value.code == 2
    assert capsys.readouterr().err == (
        "bench: argument --rounds: 'x' is no whole number from 1 to 100 (more: python -m bench -h)\n"
    )


def test_one_round_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(tmp_path, monkeypatch, [sample()], None) == 0
    found = results.read(tmp_path / "results.json").model_copy(update={"rounds": 1})
    assert "of 1 round, " in report.markdown(found)
    assert "of 1 round, " in picture.draw(found, frozenset({"tcpha"}), "direct")
