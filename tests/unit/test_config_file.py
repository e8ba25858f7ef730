"""The grammar of configuration files, and files that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tcpha.config import load_back_end, load_front_end
from tcpha.errors import ConfigError
from tests.unit.original_files import FE_NEXT, ORIGINAL_FE, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("mss=1400", "mss", 1400),
        ("\t mss\t=  1400 \t", "mss", 1400),
        ("mss = 1400 # a comment", "mss", 1400),
        ("mss = 1400\t# a # comment", "mss", 1400),
        ("secret = /etc/a#b", "secret", Path("/etc/a#b")),
        ("iface = eth0.7 #x", "iface", "eth0.7"),
    ],
)
def test_blanks_and_comments_around_a_value_do_not_count(files: Files, line: str, key: str, value: object) -> None:
    assert getattr(files.fe(ORIGINAL_FE + line), key) == value


def test_comment_sign_in_a_rule_belongs_to_its_pattern(files: Files) -> None:
    config = files.fe(ORIGINAL_FE.replace("jpg$", "a b #c = d") + "   # only this is a comment\n\n#\n")
    assert config.rule[0].pattern == "a b #c = d"


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text, str.rstrip])
def test_line_ends_of_other_systems_and_a_mark_are_tolerated(files: Files, change: Callable[[str], str]) -> None:
    assert files.fe(change(ORIGINAL_FE)) == files.fe(ORIGINAL_FE)
    assert files.fe(change(ORIGINAL_FE)).rule[1].pattern == ".*"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("mss", "not of the form `key = value`: 'mss'"),
        ("= 1400", "not of the form"),
        ("rule 192.168.1.33 a=b", "not of the form"),
        ("mss =", "mss: no value"),
        ("mss = # 1400", "mss: no value"),
        ("rule =  ", "rule: no value"),
        ("mss = 14\x0000", "control character U+0000 in column 9"),
        ("mss = 1400\rsack = no", "control character U+000D in column 11"),
    ],
)
def test_line_that_is_no_key_and_value_is_refused(files: Files, line: str, reason: str) -> None:
    number, found = files.fault(files.fe, ORIGINAL_FE + line)
    assert number == FE_NEXT
    assert found.startswith(reason)


def test_line_separators_of_unicode_do_not_count_as_lines(files: Files) -> None:
    number, _ = files.fault(files.fe, "# a\u2028b\x85c\n" + ORIGINAL_FE + "mss = x")
    assert number == FE_NEXT + 1


def test_octets_that_are_not_utf8_are_refused_with_line_and_column(files: Files) -> None:
    text = ORIGINAL_FE.encode() + b"# gr\xc3\xbc\xdf\n"
    assert files.fault(files.fe, text) == (FE_NEXT, "not UTF-8: octet 0xdf in column 6; save the file as UTF-8")
    assert files.fault(files.fe, ORIGINAL_FE.encode("utf-16"))[0] == 1


def test_unreadable_files_are_refused(files: Files, tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "missing", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "a\0b", "cannot be read: "),
    ]:
        with pytest.raises(ConfigError) as raised:
            load_back_end(path)
        assert raised.value.line is None
        assert raised.value.reason.startswith(reason)


def test_endless_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer than 1048576 octets"):
        load_front_end(Path("/dev/zero"))
