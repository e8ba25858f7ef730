"""The comparative benchmark from end to end, as short as it can be: its shape and its checks, never how fast it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import __main__ as command
from bench import checking_client, results
from bench.arena import Arena, obstacle
from bench.contenders import essential, judged
from bench.measuring import MeasuringError, await_answers
from tests.cluster.conftest import unique_name

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def _programs(_machine: None) -> None:
    if reason := obstacle(essential()):
        pytest.skip(f"the benchmark cannot run here: {reason}")


def test_quick_run_measures_everybody_and_checks_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "raise_on_signals", lambda: None)
    status = command.main(
        ["--quick", "--rounds", "1", "--seconds", "1", "--workloads", "close", "download", "--output", str(tmp_path)]
    )
    assert status == 0
    found = results.read(tmp_path / "results.json")
    contenders = command.without_impossible(command.programme_of(command._parser().parse_args(["--quick"]))).contenders
    everybody = {each.key for each in contenders}
    originals = {each.key for each in contenders if not each.is_variant}
    assert {each.contender for each in found.samples if each.workload == "close"} == everybody
    assert {each.contender for each in found.samples if each.workload == "download"} == originals
    for each in found.samples:
        assert each.wrong == []
        assert each.figures["requests"] > 0
        if each.workload == "close":
            assert each.figures["checked"] >= 4
            assert 0 <= each.figures["steal_share"] <= 1
    assert {"close_vs_haproxy", "download_vs_direct", "download_cpu_vs_haproxy"} <= found.ratios.keys()
    assert all(value > 0 for value in (*found.ratios.values(), *found.cost.values()))
    assert all(floor.verdict == "too noisy to tell" for floor in found.floors), "one round tells nothing"
    through_front = {who: found.figures["download"][who]["front_octets_per_octet"].median for who in originals}
    assert through_front["haproxy"] > 2
    for engine in judged(contenders):
        assert through_front[engine.key] < 0.1
        ran = found.figures["close"][engine.key]
        for role in ("fe", "be"):
            assert (f"programs_us_per_request_{role}" in ran) == engine.needs_programs
            assert ran[f"cpu_us_per_request_{role}"].median >= ran[f"processes_us_per_request_{role}"].median
    assert through_front["direct"] < 0.001
    assert (tmp_path / "results.svg").read_text().startswith("<svg")
    assert "HAProxy" in (tmp_path / "results.md").read_text()


def test_answer_differs_or_none_comes_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measuring._ANSWERS_LIMIT_S", 1.0)
    contender = next(each for each in essential() if each.key == "haproxy")
    with Arena(unique_name(), [contender]) as arena:
        arena.up()
        stand = arena.stand(contender)
        await_answers(stand)
        # Whatever the host's is: a front end that forwards sends a flood to nobody back to the client.
        forwarding = [node.run(["cat", "/proc/sys/net/ipv4/ip_forward"]) for node in stand.lab.nodes.values()]
        assert [done.stdout.strip() for done in forwarding] == ["0"] * len(forwarding)
        jpg = stand.document("/1k.jpg")
        lying = checking_client.Document(jpg.path, jpg.content[::-1], jpg.node)
        tally = checking_client.paced(stand.lab.client.enter, stand.target, [jpg, lying], 100, 0.04)
        assert (tally.answers, len(tally.wrong)) == (2, 2)
        stand.lab.node("be2").server.stop()
        with pytest.raises(MeasuringError, match="does not answer right"):
            await_answers(stand)
