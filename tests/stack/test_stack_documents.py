"""YAML and PromQL of the pages are accepted by the programs that they are for: each block, as a reader copies it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from otel_quantmon import semconv
from stack.programs import binary
from stack.test_stack_kubernetes import VERSION

ROOT = Path(__file__).parents[2]


def shown(language: str) -> list[Any]:
    """Each block of a language in the documentation, as a test's parameter that names its page and line."""
    found = []
    for page in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("collector-config/*.md"))):
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            if text[: match.start()].endswith("whose definition is not at hand -->\n"):
                continue
            lines = [line.removeprefix(match[1]) for line in match[2].splitlines()]
            line = text[: match.start()].count("\n") + 1
            found.append(pytest.param("\n".join(lines) + "\n", id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def check(block: str) -> None:
    """A resource of Kubernetes, or fields of a container."""
    document = yaml.safe_load(block)
    if "kind" not in document:
        container = {"name": "app", "image": "app:1", **document}
        metadata = {"name": "app"}
        document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"containers": [container]},
        }
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("block", shown("yaml"))
def test_yaml_follows_its_schema(block: str) -> None:
    """No field is misspelt, misplaced or of the wrong type."""
    check(block)


def test_a_misspelt_field_of_a_page_is_found() -> None:
    """The check above does check."""
    with pytest.raises(kubernetes_validate.ValidationError):
        check("readinessProb:\n  httpGet: {path: /ready, port: 8000}\n")


@pytest.mark.parametrize("block", shown("promql"))
def test_prometheus_understands_the_queries(block: str, tmp_path: Path) -> None:
    """`promtool` parses each query, as that of a rule, and each asks for metrics that there are."""
    queries = re.split(r"\n\s*\n", re.sub(r"^#.*$", "", block, flags=re.MULTILINE).strip())
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(
        [binary("promtool"), "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = {
        value.name.replace(".", "_") for value in vars(semconv).values() if isinstance(value, semconv.Metric)
    }
    for name in re.findall(r"\bquantmon_\w+(?=[\[{])", block):
        assert re.sub(r"(_seconds|_bytes|_ratio)?(_bucket|_count|_sum|_total)?$", "", name) in metrics, name
