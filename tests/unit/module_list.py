"""The list of modules in docs/architecture.md, made from docstrings; python -m tests.unit.module_list writes it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tcpha"
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- modules: begin (python -m tests.unit.module_list) -->\n"
END = "<!-- modules: end -->\n"


def module_files() -> list[Path]:
    """Every file of the package, those of a folder before its sub-folders."""
    return sorted(PACKAGE.rglob("*.py"), key=lambda file: (file.parent, file.stem != "__init__", file.stem))


def first_sentence(file: Path) -> str:
    paragraph = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0]
    words = " ".join(paragraph.split())
    return words.partition(". ")[0].removesuffix(".")


def module_list() -> str:
    """A table a folder: file, first sentence of its docstring."""
    lines: list[str] = []
    folder = None
    for file in module_files():
        if file.parent != folder:
            folder = file.parent
            lines += ["", f"`{folder.relative_to(ROOT)}/`", "", "| file | what it is |", "| --- | --- |"]
        what = first_sentence(file).replace("|", r"\|")
        lines.append(f"| {file.name} | {what} |")
    return "\n".join([*lines, "", ""])


def with_list(document: str) -> str:
    """The document with a fresh list between the marks."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks are missing in {DOCUMENT}")
    return before + begin + module_list() + end + after


if __name__ == "__main__":
    DOCUMENT.write_text(with_list(DOCUMENT.read_text()))
