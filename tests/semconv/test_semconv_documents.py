"""Code, registry and documentation give the telemetry the same names: each against the other, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_quantmon import semconv
from otel_quantmon.semconv import ERROR_TYPE, MODEL_ATTRIBUTES, Event, Metric

ROOT = Path(__file__).parents[2]
REGISTRY = ROOT / "semconv" / "registry"
DOCUMENTATION = ROOT / "docs" / "telemetry.md"

METRICS = {value.name: value for value in vars(semconv).values() if isinstance(value, Metric)}
EVENTS = {value.name: value for value in vars(semconv).values() if isinstance(value, Event)}
ATTRIBUTES = set(semconv.SPAN_ATTRIBUTES).union(
    *(one.attributes for one in (*METRICS.values(), *EVENTS.values()))
)


@pytest.fixture(scope="module")
def groups() -> dict[str, dict[str, Any]]:
    """All groups of the registry by id."""
    found: list[dict[str, Any]] = []
    for path in sorted(REGISTRY.glob("*.yaml")):
        if path.name != "manifest.yaml":
            found += yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    by_id = {group["id"]: group for group in found}
    assert len(by_id) == len(found)
    return by_id


def instrument(metric: Metric) -> str:
    """Kind of the instrument as OpenTelemetry writes it, where Python's API has underscores."""
    return metric.instrument.replace("up_down_counter", "updowncounter").replace("_", " ")


def definitions(groups: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for group in groups.values():
        yield from (a for a in group.get("attributes", ()) if "id" in a)


def references(groups: Mapping[str, dict[str, Any]], group: Mapping[str, Any]) -> dict[str, object]:
    """Requirement level by attribute, those of the extended group first."""
    inherited = references(groups, groups[group["extends"]]) if "extends" in group else {}
    return inherited | {a["ref"]: a["requirement_level"] for a in group.get("attributes", ())}


class TestRegistry:
    """``semconv/registry`` says what ``semconv.py`` says."""

    def test_attributes(self, groups: dict[str, dict[str, Any]]) -> None:
        """The registry defines each attribute of ours once, and only error.type comes from the standard."""
        assert sorted(a["id"] for a in definitions(groups)) == sorted(ATTRIBUTES - {ERROR_TYPE})
        referenced = {a["ref"] for g in groups.values() for a in g.get("attributes", ()) if "ref" in a}
        assert referenced == ATTRIBUTES

    def test_values(self, groups: dict[str, dict[str, Any]]) -> None:
        """Enumerated attributes have the same members in the same order, each with a meaning."""
        enumerated = {
            a["id"]: a["type"]["members"] for a in definitions(groups) if isinstance(a["type"], dict)
        }
        assert {k: tuple(m["value"] for m in v) for k, v in enumerated.items()} == semconv.ENUMERATIONS
        assert all(m["id"] == m["value"] and m["brief"] for members in enumerated.values() for m in members)

    def test_metrics(self, groups: dict[str, dict[str, Any]]) -> None:
        """Name, instrument, unit, description and attributes of each metric agree, in both directions."""
        registered = {
            g["metric_name"]: (g["instrument"], g["unit"], g["brief"], tuple(references(groups, g)))
            for g in groups.values()
            if g["type"] == "metric"
        }
        # OpenTelemetry's registry knows no asynchronous instruments: how a value is read is not part of it.
        assert registered == {
            m.name: (instrument(m).removeprefix("observable "), m.unit, m.description, m.attributes)
            for m in METRICS.values()
        }
        assert all(id_ == f"metric.{g['metric_name']}" for id_, g in groups.items() if g["type"] == "metric")

    def test_events(self, groups: dict[str, dict[str, Any]]) -> None:
        """Name, description and attributes of each event agree, in both directions."""
        registered = {
            g["name"]: (g["brief"], tuple(references(groups, g)))
            for g in groups.values()
            if g["type"] == "event"
        }
        assert registered == {e.name: (e.description, e.attributes) for e in EVENTS.values()}
        assert all(id_ == f"event.{g['name']}" for id_, g in groups.items() if g["type"] == "event")

    def test_span(self, groups: dict[str, dict[str, Any]]) -> None:
        """The one span is internal, has the same attributes, and gives the path only when asked."""
        (span,) = (g for g in groups.values() if g["type"] == "span")
        levels = references(groups, span)
        assert span["span_kind"] == "internal"
        assert tuple(levels) == semconv.SPAN_ATTRIBUTES
        assert [a for a, level in levels.items() if level == "opt_in"] == [semconv.MODEL_PATH]

    def test_form(self, groups: dict[str, dict[str, Any]]) -> None:
        """What Weaver asks of each entry: a brief, a stability, examples, a level at each reference."""
        for attribute in definitions(groups):
            assert attribute["brief"]
            assert attribute["stability"] == "development"
            assert (
                isinstance(attribute["type"], dict) or attribute["type"] == "boolean" or attribute["examples"]
            )
        for group in groups.values():
            assert group["brief"]
            assert group["type"] in {"attribute_group", "event", "metric", "span"}
            assert all(a["requirement_level"] for a in group.get("attributes", ()) if "ref" in a)
            if group["type"] != "attribute_group":
                assert group["stability"] == "development"

    def test_manifest(self) -> None:
        """The manifest names the registry with a version, and the standard that error.type comes from."""
        manifest = yaml.safe_load((REGISTRY / "manifest.yaml").read_text(encoding="utf-8"))
        assert re.fullmatch(r"https://[^/]+/schemas/\d+\.\d+\.\d+", manifest["schema_url"])
        (standard,) = manifest["dependencies"]
        assert standard["schema_url"].startswith("https://opentelemetry.io/schemas/")
        assert f"@v{standard['schema_url'].rpartition('/')[2]}[" in standard["registry_path"]


@pytest.fixture(scope="module")
def tables() -> dict[tuple[str, ...], list[list[str]]]:
    """Rows of the documentation's tables, tables with the same head joined; code marks are kept."""
    found: dict[tuple[str, ...], list[list[str]]] = {}
    head: tuple[str, ...] | None = None
    for line in DOCUMENTATION.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            head = None
        elif head is None:
            head = tuple(cells)
            found.setdefault(head, [])
        elif set(cells) != {"---"}:
            found[head].append(cells)
    return found


def code(cell: str) -> str:
    marked = re.fullmatch(r"`([^`]+)`", cell)
    assert marked, f"{cell!r} should be a name in code marks"
    return marked[1]


def attribute_list(cell: str) -> tuple[str, ...]:
    """``*model*, `a.b``` as the names it stands for."""
    names: list[str] = []
    for part in cell.split(", "):
        names += MODEL_ATTRIBUTES if part == "*model*" else [code(part)]
    return tuple(names)


def in_prometheus(metric: Metric, *, utf8: bool) -> str:
    """Name after translation with suffixes.

    Source: the compatibility specification,
    https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/.
    """
    name = metric.name if utf8 else metric.name.replace(".", "_")
    suffixes = [{"s": "seconds", "By": "bytes", "dB": "dB"}.get(metric.unit.partition("/")[0], "")]
    suffixes.append("total" if metric.instrument in {"counter", "observable_counter"} else "")
    suffixes.append("ratio" if metric.unit == "1" and metric.instrument == "observable_gauge" else "")
    for suffix in filter(None, suffixes):
        name = f"{name.removesuffix('_' + suffix)}_{suffix}"
    return name


class TestDocumentation:
    """The tables of ``docs/telemetry.md`` say what ``semconv.py`` and the registry say."""

    def test_metrics(self, tables: dict[tuple[str, ...], list[list[str]]]) -> None:
        """Instrument, unit, attributes and meaning of each metric agree, in both directions."""
        rows = tables["Metric", "Instrument", "Unit", "Attributes", "Meaning", "Present"]
        documented = [
            (code(name), kind, code(unit), attribute_list(attributes), meaning)
            for name, kind, unit, attributes, meaning, _ in rows
        ]
        assert sorted(documented) == sorted(
            (m.name, instrument(m), m.unit, m.attributes, m.description) for m in METRICS.values()
        )
        assert all(row[-1] for row in rows)

    def test_attributes(
        self, tables: dict[tuple[str, ...], list[list[str]]], groups: dict[str, dict[str, Any]]
    ) -> None:
        """Each attribute is explained once, with the registry's type and meaning, and where it occurs."""
        rows = {code(row[0]): row[1:] for row in tables["Attribute", "Type", "On", "Values", "Meaning"]}
        assert set(rows) == ATTRIBUTES
        assert len(rows) == len(tables["Attribute", "Type", "On", "Values", "Meaning"])
        for attribute in definitions(groups):
            kind, _, _, meaning = rows[attribute["id"]]
            expected = attribute["type"]
            assert kind == ("string, enumerated" if isinstance(expected, dict) else expected)
            assert meaning == " ".join(filter(None, (attribute["brief"], attribute.get("note"))))
        for name, (_, where, values, _) in rows.items():
            carriers = {m.name for m in METRICS.values() if name in m.attributes}
            expected_where = ["span"] if name in semconv.SPAN_ATTRIBUTES else []
            if carriers:
                info_only = carriers == {"quantmon.model.info"}
                expected_where.append("`quantmon.model.info`" if info_only else "metrics")
            if any(name in event.attributes for event in EVENTS.values()):
                expected_where.append("events")
            assert where == ", ".join(expected_where), name
            assert not carriers or values != "unbounded", name

    def test_values(
        self, tables: dict[tuple[str, ...], list[list[str]]], groups: dict[str, dict[str, Any]]
    ) -> None:
        """Each value of each enumerated attribute is explained as in the registry."""
        documented = [(code(a), code(v), m) for a, v, m in tables["Attribute", "Value", "Meaning"]]
        assert documented == [
            (key, value, brief)
            for key in semconv.ENUMERATIONS
            for attribute in definitions(groups)
            if attribute["id"] == key
            for value, brief in ((m["value"], m["brief"]) for m in attribute["type"]["members"])
        ]

    def test_span(
        self, tables: dict[tuple[str, ...], list[list[str]]], groups: dict[str, dict[str, Any]]
    ) -> None:
        """Each attribute of the span is listed with the registry's condition."""
        words = {"required": "Always.", "recommended": "Where known.", "opt_in": "Only when asked for."}
        (span,) = (g for g in groups.values() if g["type"] == "span")
        assert [(code(a), when) for a, when in tables["Attribute", "When"]] == [
            (a, level["conditionally_required"] if isinstance(level, dict) else words[str(level)])
            for a, level in references(groups, span).items()
        ]

    def test_events(
        self, tables: dict[tuple[str, ...], list[list[str]]], groups: dict[str, dict[str, Any]]
    ) -> None:
        """Each event is explained as in the code, and each attribute of an anomaly with the registry's condition."""
        assert {code(name): meaning for name, meaning in tables["Event", "Meaning"]} == {
            event.name: event.description for event in EVENTS.values()
        }
        words = {"required": "Always.", "recommended": "Where finite."}
        levels = references(groups, groups["event.quantmon.anomaly.entered"])
        assert [(code(a), when) for a, when in tables["Event attribute", "On events of anomalies"]] == [
            (a, level["conditionally_required"] if isinstance(level, dict) else words[str(level)])
            for a, level in levels.items()
        ]

    def test_span_modes(self, tables: dict[tuple[str, ...], list[list[str]]]) -> None:
        """Each span mode is explained."""
        assert tuple(code(mode) for mode, _ in tables["Mode", "Spans"]) == semconv.SPAN_MODES

    def test_buckets(self, tables: dict[tuple[str, ...], list[list[str]]]) -> None:
        """The documented boundaries are the ones given to the SDK."""
        documented = {
            code(name): tuple(float(bound) for bound in bounds.split(", "))
            for name, bounds in tables["Metric", "Upper bounds"]
        }
        assert documented == {m.name: m.boundaries for m in METRICS.values() if m.boundaries}

    def test_prometheus(self, tables: dict[tuple[str, ...], list[list[str]]]) -> None:
        """Type and both names of each metric in Prometheus follow from its instrument and unit."""
        kinds = {
            "counter": "counter",
            "observable_counter": "counter",
            "histogram": "histogram",
            "observable_gauge": "gauge",
            "observable_up_down_counter": "gauge",
        }
        rows = tables["Metric", "Type", "Underscores", "UTF-8", "Series per model"]
        assert sorted((code(n), t, code(u), code(v)) for n, t, u, v, _ in rows) == sorted(
            (m.name, kinds[m.instrument], in_prometheus(m, utf8=False), in_prometheus(m, utf8=True))
            for m in METRICS.values()
        )
        # Buckets, the one for infinity, _sum and _count.
        for name, _, _, _, series in rows:
            if boundaries := METRICS[code(name)].boundaries:
                assert int(series.split()[0]) == len(boundaries) + 3

    def test_queries_name_existing_series(self) -> None:
        """The example queries use only series and labels that exist."""
        text = DOCUMENTATION.read_text(encoding="utf-8")
        known = {a.replace(".", "_") for a in ATTRIBUTES}
        for metric in METRICS.values():
            name = in_prometheus(metric, utf8=False)
            suffixes = ("_bucket", "_sum", "_count") if metric.boundaries else ("",)
            known |= {name + suffix for suffix in suffixes}
        assert set(re.findall(r"\bquantmon_[a-z_]+", text.partition("```promql")[2])) <= known
