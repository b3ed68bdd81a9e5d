"""Docstrings are written as CONTRIBUTING.md says, as far as a machine can read them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import otel_quantmon

PACKAGE = Path(otel_quantmon.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _descriptions(docstring: str) -> Iterator[str]:
    """Lines of a docstring that describe an argument, an attribute or an error."""
    inside = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            inside = line in ("Args:", "Attributes:", "Raises:")
        elif inside and re.match(r" {4}\*{0,2}\w[\w., *]*: ", line):
            yield line.strip()


def test_what_is_described_begins_as_a_sentence() -> None:
    """Each argument has its noun: "settings: Settings of the process.", and not "settings: of the process."."""
    wrong = [
        f"{module.relative_to(PACKAGE)}: {line}"
        for module in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, DOCUMENTED)
        for line in _descriptions(ast.get_docstring(node) or "")
        if line.partition(": ")[2][0].islower()
    ]
    assert not wrong, "begin with a capital letter and a noun"
