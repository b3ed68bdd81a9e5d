"""What the page shows in a real browser is what the store holds."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from desk import page_run
from desk.browser.chromium import FAILED, Browser, cells
from desk.otlp import durations
from otel_quantmon.desk import queries
from otel_quantmon.desk.overview import Overview, overview
from otel_quantmon.desk.page import Page, write_report
from otel_quantmon.desk.page.timeline import Axis, latency


def rows(reader: sqlite3.Connection) -> dict[str, Overview]:
    return {row.model.name: row for row in overview(reader, queries.newest_time(reader))}


def significant(value: float, unit: float = 1.0) -> str:
    """Three digits, as the page writes a number without its unit."""
    return f"{value / unit:.3g}"


def test_the_table_of_models_shows_the_stores_numbers(
    browser: Browser, page: str, reader: sqlite3.Connection
) -> None:
    """Every number of the overview, as it is rounded for people; a hostile name is read as it is."""
    browser.open(page)
    shown = cells(browser)
    assert set(shown) == {page_run.GOOD, page_run.HOSTILE}
    for name, row in rows(reader).items():
        told = shown[name]
        assert told["Calls"] == f"{row.calls:,}"
        assert told["Errors"] == str(sum(row.errors.values()))
        assert told["Anomalies"] == f"{sum(row.anomalies.values())}{' now' if row.active else ''}"
        for label, value in (("p50", row.p50), ("p95", row.p95), ("p99", row.p99)):
            assert value is not None
            unit = ("µs", 1e-6) if value < 1e-3 else ("ms", 1e-3)
            assert told[label] == f"{significant(value, unit[1])} {unit[0]}"
        assert told["Relative error"] == significant(row.relative_error or 0)
        assert told["Clipping"] == f"{significant(row.clipping or 0, 0.01)} %"
        assert told["Memory"] == f"{significant(row.memory or 0, 2**20)} MiB"
        assert told["Drift"].strip("+ %") == f"{(row.drift or 0) * 100:.2g}".replace("1.5e+02", "150")
    assert browser.script("return window.harmed") is None
    assert browser.complaints() == []


def test_the_charts_draw_the_stores_numbers(browser: Browser, page: str, reader: sqlite3.Connection) -> None:
    """The lines of the latency chart are the store's quantiles, the bars its calls; its table has the same."""
    browser.open(page, "#/model/1")
    found = latency(reader, 1, Axis.of(reader))
    drawn = browser.script("return document.getElementById('chart-latency').data.map((t) => [t.name, t.y])")
    lines = {name: values for name, values in drawn if name in {"p50", "p95", "p99"}}
    assert lines == {name: found[name] for name in ("p50", "p95", "p99")}
    (bars,) = browser.script("return document.getElementById('chart-rate').data.map((t) => t.y)")
    assert bars == found["calls"]
    errors = browser.script("return document.getElementById('chart-error').data.map((t) => t.name)")
    assert "&lt;i&gt;boxes" in errors
    anomalies = browser.script("return document.getElementById('chart-memory').layout.shapes.length")
    # Two began; of one that was left and of one that is on, the time of it is shaded.
    assert anomalies == 4
    browser.all("#details-latency summary")[0].click()
    newest = browser.until(lambda: browser.all("#table-latency tbody tr")[0])
    assert newest.find_elements(By.TAG_NAME, "td")[0].text == f"{significant(found['p50'][-1], 1e-3)} ms"
    assert browser.complaints() == []


def test_what_has_not_changed_is_not_drawn_anew(browser: Browser, page: str) -> None:
    """A selection in a table stays where there are news of something else."""
    browser.open(page, "#/model/1")
    browser.all("#details-latency summary")[0].click()
    row = browser.until(lambda: browser.all("#table-latency tbody tr")[0])
    text = row.text
    browser.script(
        "delete document.documentElement.dataset.ready;document.dispatchEvent(new Event('visibilitychange'))"
    )
    browser.shown()
    assert row.text == text


def test_an_anomaly_is_on_every_axis_of_time(browser: Browser, page: str) -> None:
    """Zooming one chart zooms all that have time below them."""
    browser.open(page, "#/model/1")
    browser.script(
        "Plotly.relayout('chart-latency', {'xaxis.range[0]': '2023-11-14 22:14:00', "
        "'xaxis.range[1]': '2023-11-14 22:14:20'})"
    )
    for name in ("rate", "drift", "error", "clipping", "memory"):
        shown = browser.script(f"return document.getElementById('chart-{name}').layout.xaxis.range")
        assert [str(each)[:19].replace("T", " ") for each in shown] == [
            "2023-11-14 22:14:00",
            "2023-11-14 22:14:20",
        ]
        shapes = browser.script(
            f"return document.getElementById('chart-{name}').layout.shapes.map((s) => s.type)"
        )
        assert sorted(shapes) == ["line", "line", "rect", "rect"]


def test_latency_can_be_read_on_a_logarithmic_scale(browser: Browser, page: str) -> None:
    """One slow call must not flatten all others: a button that tells its state changes the axis, there and back."""
    browser.open(page, "#/model/1")
    (button,) = browser.all(".scale")
    for pressed, kind in (("true", "log"), ("false", "linear")):
        button.click()
        assert button.get_attribute("aria-pressed") == pressed
        assert browser.script("return document.getElementById('chart-latency').layout.yaxis.type") == kind


def test_an_inference_has_a_permalink_a_waterfall_and_its_json(
    browser: Browser, page: str, reader: sqlite3.Connection
) -> None:
    """From the list of the failed to the trace; what is copied is the span as the store has it."""
    browser.open(page, "#/model/1")
    browser.all("#failed a")[0].click()
    browser.until(lambda: browser.all(".waterfall tbody tr"))
    assert browser.driver.current_url == page + FAILED
    names = [row.find_element(By.TAG_NAME, "th").text for row in browser.all(".waterfall tbody tr")]
    assert names == ["POST /detect", f"inference {page_run.GOOD}"]
    outer, inner = (
        browser.script("return arguments[0].getBoundingClientRect().toJSON()", bar)
        for bar in browser.all(".bar")
    )
    span = queries.span(reader, f"{5:032x}", f"{5:016x}")
    assert span is not None
    assert (inner["left"] - outer["left"]) / outer["width"] == pytest.approx(0.003 / 0.048, abs=0.01)
    assert inner["width"] / outer["width"] == pytest.approx(span.duration / 0.048, abs=0.01)
    origin = page.rstrip("/")
    browser.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    browser.all(".actions button")[0].click()
    browser.until(lambda: browser.all(".actions button")[0].text == "Copied")
    copied = json.loads(
        browser.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    )
    assert (copied["span_id"], copied["duration"]) == (span.span_id, span.duration)
    assert copied["attributes"] == span.attributes
    assert int(copied["start_ns"]) == span.start
    (event,) = span.events
    assert copied["events"] == [{**event, "time": event["time"] / 1e6, "time_ns": str(event["time"])}]
    assert browser.complaints() == []


def test_the_report_shows_the_same_without_a_server(
    browser: Browser, page: str, run: Path, tmp_path: Path
) -> None:
    """From the file alone: the same numbers, the same charts, traces too, and nothing is fetched."""
    browser.open(page)
    served = cells(browser)
    file = tmp_path / "report.html"
    write_report(run, file)
    browser.open(file.as_uri())
    assert cells(browser) == served
    browser.open(file.as_uri(), "#/model/1")
    assert browser.script("return document.getElementById('chart-latency').data.length") == 7
    browser.open(file.as_uri(), FAILED)
    assert len(browser.all(".waterfall tbody tr")) == 2
    assert browser.script("return performance.getEntriesByType('resource').length") == 0
    assert browser.complaints() == []


def test_numbers_change_while_one_looks(browser: Browser, store: Any, send: Any) -> None:
    """What is written is shown without a reload; what one has opened stays open."""
    send(durations([5, 0, 0], 1))
    page = Page(store.path)
    page.start()
    try:
        browser.open(f"{page.address}/", "#/model/1")
        browser.all("#details-latency summary")[0].click()
        browser.script("window.same = document.querySelector('#chart-latency')")
        send(durations([7, 0, 0], 2, start=1))
        browser.until(lambda: browser.all(".tile dd")[0].text.startswith("12"))
        browser.until(lambda: len(browser.all("#table-latency tbody tr")) == 2)
        assert browser.script("return window.same === document.querySelector('#chart-latency')")
        assert browser.complaints() == []
    finally:
        page.stop()
    browser.until(lambda: "no connection" in browser.all("#state")[0].text)
