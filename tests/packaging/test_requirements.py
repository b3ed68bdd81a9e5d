"""What `pyproject.toml` asks of those who install the package, and what it promises them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

RUNTIMES = {"numpy", "onnxruntime", "tensorflow", "ai-edge-litert"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distributions() -> tuple[str, ...]:
    """`otel_quantmon.package._instruments_any`, read without importing: it has to be right in the source."""
    namespace: dict[str, Any] = {}
    source = (ROOT / "src" / "otel_quantmon" / "package.py").read_text()
    exec(compile(ast.parse(source), "package.py", "exec"), namespace)
    return namespace["_instruments_any"]


def named(requirements: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, requirements)}


def test_hard_dependencies_are_these_and_no_other(project: dict[str, Any]) -> None:
    """No runtime and no numpy: the Kubernetes operator puts what is installed in front of the application's own."""
    hard = named(project["dependencies"])
    assert sorted(hard) == [
        "opentelemetry-api",
        "opentelemetry-instrumentation",
        "opentelemetry-semantic-conventions",
        "psutil",
        "tomli",
        "wrapt",
    ]
    assert str(hard["tomli"].marker) == 'python_version < "3.11"', "Python reads TOML itself since 3.11"


def test_ranges_are_wide(project: dict[str, Any]) -> None:
    """Every dependency has an oldest version, none is pinned, and OpenTelemetry's betas end before 1."""
    for name, requirement in named(project["dependencies"]).items():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators, name
        assert operators <= {">=", "<"}, name
    for name in ("opentelemetry-instrumentation", "opentelemetry-semantic-conventions"):
        assert "<1" in str(named(project["dependencies"])[name].specifier)


def test_instruments_any_names_every_distribution(project: dict[str, Any]) -> None:
    """OpenTelemetry's tools read the extra, the code reads `package.py`: they agree."""
    assert tuple(project["optional-dependencies"]["instruments-any"]) == distributions()


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorflow", "litert"])
def test_extra_of_a_runtime_and_its_instrumentation_start_at_the_same_release(
    project: dict[str, Any], runtime: str
) -> None:
    """What an extra installs is instrumented."""
    instrumented = named(list(distributions()))
    for name, requirement in named(project["optional-dependencies"][runtime]).items():
        assert requirement.specifier == instrumented[name].specifier


def test_all_is_every_extra_for_users(project: dict[str, Any]) -> None:
    """`all` leaves out only what is not for users: what is there to be read."""
    extras = project["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.extras == extras.keys() - {"all", "instruments-any"}
    assert everything.extras >= {"onnxruntime", "tensorflow", "litert", "otlp", "cli"}


def test_runtimes_come_by_extras_only(project: dict[str, Any]) -> None:
    """Neither a hard dependency nor an extra that is not named for it brings a runtime or numpy."""
    extras = {name: named(requirements) for name, requirements in project["optional-dependencies"].items()}
    assert not RUNTIMES & named(project["dependencies"]).keys()
    for extra in ("otlp", "cli"):
        assert not RUNTIMES & extras[extra].keys()
