"""What may import what: the rooms of the package, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import otel_quantmon

PACKAGE = Path(otel_quantmon.__file__).parent
NAME = "otel_quantmon"

# From those who know most to those who know least: a room imports only from rooms after it. See docs/architecture.md.
ROOMS = (
    "cli",
    "desk",
    "evaluator",
    "instrumentors",
    "runtimes",
    "pipeline",
    "probe",
    "recording",
    "fidelity",
    "detection",
    "process",
    "models",
    "hooks",
    "telemetry",
    "settings",
)

# Of no room: they import nothing of the package, or nothing but each other, and every room may use them.
EVERYWHERE = {"_version", "environment_variables", "errors", "guard", "package", "semconv"}

RUNTIMES = {"onnxruntime", "tensorflow", "ai_edge_litert", "tflite_runtime"}

# Imports for the type checker alone, each for a reason that is no circle.
FOR_TYPES = {
    "": "the public names are loaded when they are asked for",
    "instrumentors": "nothing of the pipeline is loaded before the application has imported a runtime",
}
# An application without numpy has no tensors.
SLOW = {"numpy", "psutil"}


@dataclass(frozen=True)
class Import:
    """One import of a module of the package, wherever it stands in the file."""

    importer: str
    imported: str
    line: int
    for_types: bool


def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()

# A runtime's own reader knows nothing but the description that it makes, so that an engine may read with it too.
READERS = {
    module
    for module in MODULES
    if module.startswith("runtimes.") and module.endswith((".reading", ".ort_values"))
}


def _imports(module: str) -> Iterator[Import]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = for_types
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                inside = True
            if isinstance(child, ast.Import):
                yield from (Import(module, alias.name, child.lineno, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = [NAME, *(package.split(".") if package else [])]
                    above = above[: len(above) - child.level + 1]
                    base = ".".join([*above, *([base] if base else [])])
                for alias in child.names:
                    full = f"{base}.{alias.name}"
                    own = full.removeprefix(f"{NAME}.")
                    yield Import(module, full if own in MODULES else base, child.lineno, inside)
            yield from walk(child, inside)

    return walk(ast.parse(path.read_text("utf-8")), for_types=False)


IMPORTS = [one for module in MODULES for one in _imports(module)]


def _own(imported: str) -> str | None:
    if imported == NAME:
        return ""
    return imported.removeprefix(f"{NAME}.") if imported.startswith(f"{NAME}.") else None


def _room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_is_in_a_room_or_for_every_room() -> None:
    """A new folder has a place in the order, or this test names it."""
    assert {_room(module) for module in MODULES if module} <= {*ROOMS, *EVERYWHERE}


def test_imports_go_down_the_rooms() -> None:
    """No room imports from one before it, also not later, within a function, or for the type checker."""
    wrong: list[str] = []
    for one in IMPORTS:
        target = _own(one.imported)
        if not target or not one.importer or target in READERS:
            continue
        here, there = _room(one.importer), _room(target)
        if here == there or there in EVERYWHERE:
            continue
        up = here in EVERYWHERE or ROOMS.index(there) < ROOMS.index(here)
        if up and not (one.for_types and one.importer in FOR_TYPES):
            wrong.append(f"{one.importer}:{one.line} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_the_picture_in_the_documentation_agrees() -> None:
    """It shows every room, and no arrow but that to the readers points up."""
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text("utf-8")
    picture = text.partition("```mermaid\n")[2].partition("```")[0]
    assert set(re.findall(r'^    (\w+)\["', picture, re.MULTILINE)) == set(ROOMS)
    for line in picture.splitlines():
        way = [room.strip() for room in line.split("-->")]
        assert way == sorted(way, key=lambda room: ROOMS.index(room) if len(way) > 1 else 0), line


def test_readers_import_nothing_but_the_models() -> None:
    """So an engine, and a process that runs nothing else, can read a runtime's objects with them."""
    assert "runtimes.tflite.reading" in READERS
    wrong = [
        f"{one.importer}:{one.line} imports {one.imported}"
        for one in IMPORTS
        if one.importer in READERS
        and (target := _own(one.imported)) is not None
        and target not in READERS
        and _room(target) not in {"models", *EVERYWHERE}
    ]
    assert not wrong, "\n".join(wrong)


def test_there_is_no_circle_of_imports() -> None:
    """Following imports of modules, those in functions included, never leads back."""
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for one in IMPORTS:
        target = _own(one.imported)
        # The package's own __init__ has nothing but lazy names.
        if target and one.importer and target != one.importer and target in graph:
            graph[one.importer].add(target)
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_type_checking_hides_no_circle() -> None:
    """What only the type checker imports is another package that is slow to load, or is listed with its reason."""
    wrong = [
        f"{one.importer}:{one.line} imports {one.imported}"
        for one in IMPORTS
        if one.for_types
        and one.importer not in FOR_TYPES
        and one.imported.partition(".")[0] not in SLOW
        and not (_own(one.imported) or "").startswith("fidelity.baseline")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_telemetry_imports_opentelemetry() -> None:
    """Whoever needs a type or a function of OpenTelemetry's asks the room of telemetry for it.

    The messages of OTLP are another package, and what the desk and the evaluator receive, which are no part of an
    application.
    """
    wrong = [
        f"{one.importer}:{one.line} imports {one.imported}"
        for one in IMPORTS
        if one.imported.partition(".")[0] == "opentelemetry"
        and _room(one.importer) != "telemetry"
        and not (
            _room(one.importer) in {"desk", "evaluator"} and one.imported.startswith("opentelemetry.proto.")
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_only_runtimes_and_engines_import_a_runtime() -> None:
    """Nothing else touches a runtime; and `runtimes` itself finds it where the application has imported it."""
    wrong = [
        f"{one.importer}:{one.line} imports {one.imported}"
        for one in IMPORTS
        if one.imported.partition(".")[0] in RUNTIMES
        and not one.importer.startswith(("runtimes.", "fidelity.engines", "cli."))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"semconv"}))  # a table, to be looked up
def test_no_module_is_too_long_to_read(module: str) -> None:
    """About 400 lines are what one sitting takes in."""
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= 420
