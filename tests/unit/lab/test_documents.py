from __future__ import annotations

from pathlib import Path

import pytest

from tcpha.lab import documents


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "SIZES_OCTETS", {"0": 0, "1": 1, "2m": 2_000_001})


def test_sizes_are_decimal_octets() -> None:
    assert documents.SIZES_OCTETS == {
        "0": 0,
        "1": 1,
        "1k": 1000,
        "100k": 100_000,
        "1m": 1_000_000,
        "10m": 10_000_000,
        "100m": 100_000_000,
    }


@pytest.mark.usefixtures("_small")
def test_made_documents_have_their_size_and_twins(tmp_path: Path) -> None:
    directory = tmp_path / "lab" / "documents"
    documents.make(directory)
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        name + twin for name in ("0", "1", "2m") for twin in ("", ".jpg", ".html")
    )
    octets = (directory / "2m").read_bytes()
    assert len(octets) == 2_000_001
    assert (directory / "2m.jpg").read_bytes() == (directory / "2m.html").read_bytes() == octets
    assert octets[:1000] not in octets[1000:]


@pytest.mark.usefixtures("_small")
def test_made_documents_made_again_are_refused(tmp_path: Path) -> None:
    documents.make(tmp_path / "documents")
    with pytest.raises(FileExistsError):
        documents.make(tmp_path / "documents")
    documents.remove(tmp_path / "documents")
    documents.remove(tmp_path / "documents")
    assert list(tmp_path.iterdir()) == []


def test_directory_where_shared_memory_is_no_tmpfs_is_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_SHARED_MEMORY", tmp_path)
    assert documents.choose_directory("name", Path("/otherwise")) == Path("/otherwise")


@pytest.mark.parametrize(("size_octets", "in_memory"), [(1, True), (1 << 60, False)])
def test_directory_is_in_memory_if_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_octets: int, in_memory: bool
) -> None:
    monkeypatch.setattr(documents, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(documents, "_is_tmpfs", lambda _path: True)
    monkeypatch.setattr(documents, "SIZES_OCTETS", {"x": size_octets})
    chosen = documents.choose_directory("name", Path("/otherwise"))
    assert chosen == (tmp_path / "tcpha-lab-name" if in_memory else Path("/otherwise"))
