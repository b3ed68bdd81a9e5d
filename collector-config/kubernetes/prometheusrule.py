"""Writes ``prometheusrule.yaml`` from the rules of ``../prometheus/rules``: the Prometheus operator's form of them."""

# ruff: noqa: INP001 - a script beside what it writes, not a package

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
HEAD = """\
# Written by prometheusrule.py from ../prometheus/rules/; change those.

apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: quantmon
spec:
  groups:
"""


def rendered() -> str:
    """Return the resource, with the rules' text as it is."""
    text = HEAD
    for file in sorted((HERE.parent / "prometheus" / "rules").glob("*.yml")):
        _, _, groups = file.read_text().partition("\ngroups:\n")
        text += "".join(f"  {line}\n" if line else "\n" for line in groups.splitlines())
    return text


if __name__ == "__main__":
    (HERE / "prometheusrule.yaml").write_text(rendered())
