"""How locks are held: what a signal handler raises must not leave one held."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_quantmon

PACKAGE = Path(otel_quantmon.__file__).parent
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp)
OTHER_CODE = (ast.FunctionDef, ast.Lambda, ast.GeneratorExp)


def held(path: Path) -> Iterator[ast.With]:
    """The statements of a module that hold a lock."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.With) and any(
            "lock" in ast.unparse(item.context_expr) for item in node.items
        ):
            yield node


def loops(node: ast.AST) -> Iterator[int]:
    """The lines of the loops in a statement, those of other functions apart."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, LOOPS):
            yield child.lineno
        elif not isinstance(child, OTHER_CODE):
            yield from loops(child)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_loop_stands_in_a_block_that_holds_a_lock(path: Path) -> None:
    """From Python 3.12 on the compiler leaves a loop's jump back out of the table of exceptions of the block around
    it. A signal's handler that raises right there would leave the lock held for ever. A function of its own has no
    such gap.
    """
    assert {line for statement in held(path) for line in loops(statement)} == set()
