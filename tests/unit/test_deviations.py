"""docs/deviations.md is what the code and the table of measured differences say."""

from __future__ import annotations

from tests.cluster.deviations import (
    DEVIATIONS,
    DOCUMENT,
    EVERYWHERE,
    SCRIPTS,
    document,
    judge,
    statement_of,
    statements,
)


def test_document_is_what_table_and_code_say() -> None:
    assert DOCUMENT.read_text() == document(), "write it again: python -m tests.cluster.deviations"


def test_each_deviation_is_stated_once_in_the_code() -> None:
    said = [statement_of(each) for each in DEVIATIONS]
    assert len(set(said)) == len(said)


def test_each_script_of_the_table_exists_and_has_one_name() -> None:
    names = [script.name for script in SCRIPTS]
    assert len(set(names)) == len(names) >= 35
    assert {name for each in DEVIATIONS for name in each.seen} <= {*names, EVERYWHERE}


def test_statements_end_where_the_next_begins() -> None:
    texts = [each.text for each in statements()]
    assert not [text for text in texts if "Deviation:" in text or '"""' in text]
    assert [text[-1] for text in texts] == ["."] * len(texts)


def test_judge_tells_unknown_from_absent_differences() -> None:
    script = "SYN that asks for ECN"
    whole = ["1 missing: SAE seq=0", "1 additional: SA seq=0", "2 PA tos: 2 -> 0", "1 SA wscale: 10 -> 7"]
    assert judge(script, whole) == judge("plain request", []), "as the table has it"
    assert judge(script, [*whole, "2 PA ttl: 64 -> 63"]).unknown == ("2 PA ttl: 64 -> 63",)
    assert judge(script, whole[1:]).absent == ("1 missing: SAE *",)
    assert judge("request in two segments", []).absent == (), "what does not happen each time may not happen"
