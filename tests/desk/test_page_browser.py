"""The page in a real browser: what an engineer sees is what the store holds, in both languages, wide and narrow.

Needs Chromium and its driver; without them it fails where `CI` is set and is skipped elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="nox -s page installs it")

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from desk import page_run
from desk.otlp import durations
from otel_quantmon.desk import queries
from otel_quantmon.desk.overview import Overview, overview
from otel_quantmon.desk.page import Page, write_report
from otel_quantmon.desk.page.timeline import Axis, latency
from otel_quantmon.desk.schema import open_reader

DESKTOP, PHONE = (1400, 900), (390, 844)
FAILED = f"#/inference/{5:032x}/{5:016x}"
VIEWS = ("#/", "#/model/1", "#/model/2", FAILED)


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"no {names[0]} on this machine: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return found


class Browser:
    """A headless Chromium of its own, and what it was asked for."""

    def __init__(self, profile: Path, language: str = "en-GB", size: tuple[int, int] = DESKTOP) -> None:
        options = ChromeOptions()
        options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
        for flag in (
            *("headless", "hide-scrollbars", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            f"user-data-dir={profile}",
            f"lang={language}",
        ):
            options.add_argument(f"--{flag}")
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(options=options, service=ChromeService(_program("chromedriver")))
        self.resize(size)

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        told = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", told)

    def open(self, address: str, view: str = "#/") -> None:
        """Open a view anew, and wait until it is shown."""
        self.driver.get("about:blank")
        self.driver.get(address + view)
        self.shown()

    def shown(self) -> None:
        """Wait until the view of the address is there."""
        self.until(
            lambda: self.script(
                "const root = document.documentElement; const view = location.hash.match(/[0-9a-f]{32}|\\d+$/);"
                "return root.dataset.ready && (!view || root.dataset.ready.includes(view[0]))"
            )
        )

    def until(self, condition: Callable[[], Any]) -> Any:
        # What was just found may be drawn anew before it is read: then it is looked for again.
        waiting = WebDriverWait(
            self.driver, 60, ignored_exceptions=[StaleElementReferenceException, IndexError]
        )
        return waiting.until(lambda _: condition())

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def complaints(self) -> list[str]:
        """What the console has of errors and warnings, refused content included."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in {"SEVERE", "WARNING"}
        ]

    def hosts(self) -> set[str]:
        """Of everything that was fetched."""
        return set(
            self.script("return performance.getEntriesByType('resource').map((e) => new URL(e.name).host)")
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.db"
    page_run.write(path)
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> Iterator[str]:
    page = Page(run)
    page.start()
    yield f"{page.address}/"
    page.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("english"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def reader(run: Path) -> Iterator[sqlite3.Connection]:
    database = open_reader(run)
    yield database
    database.close()


def rows(reader: sqlite3.Connection) -> dict[str, Overview]:
    return {row.model.name: row for row in overview(reader, queries.newest_time(reader))}


def significant(value: float, unit: float = 1.0) -> str:
    """Three digits, as the page writes a number without its unit."""
    return f"{value / unit:.3g}"


def cells(browser: Browser) -> dict[str, dict[str, str]]:
    """What the table of models shows, by name and by the column's label."""
    return {
        row.find_element(By.CSS_SELECTOR, "th a").text: {
            cell.get_attribute("data-label") or "": cell.text
            for cell in row.find_elements(By.CSS_SELECTOR, "td")
        }
        for row in browser.all(".cards tbody tr")
    }


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
    browser.until(lambda: browser.all("#table-latency tbody tr"))
    newest = browser.all("#table-latency tbody tr")[0]
    assert newest.find_elements(By.TAG_NAME, "td")[0].text == f"{significant(found['p50'][-1], 1e-3)} ms"
    assert browser.complaints() == []


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


@pytest.mark.parametrize("view", VIEWS)
def test_it_is_quiet_and_asks_nobody_else(browser: Browser, page: str, view: str) -> None:
    """No error in the console, and everything that is fetched comes from the page's own address."""
    browser.open(page, view)
    assert browser.complaints() == []
    assert browser.hosts() == {page.split("/")[2]}


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_a_phone(browser: Browser, page: str, view: str) -> None:
    """At 390 points nothing has to be scrolled sideways but tables that say so."""
    browser.resize(PHONE)
    try:
        browser.open(page, view)
        assert browser.script("return document.documentElement.scrollWidth") <= PHONE[0]
        assert browser.script("return document.querySelector('h1').getBoundingClientRect().right") <= PHONE[0]
    finally:
        browser.resize(DESKTOP)


@pytest.mark.parametrize("view", VIEWS)
def test_whoever_cannot_see_is_told(browser: Browser, page: str, view: str) -> None:
    """Links, buttons, tables, pictures and regions have names; there is one main heading."""
    browser.open(page, view)
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {"link", "button", "table", "image", "img", "region", "navigation", "columnheader", "rowheader"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored")
        and node["role"]["value"] in named
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    assert len(browser.all("h1")) == 1
    assert browser.script("return document.documentElement.lang") == "en"


def test_the_keyboard_is_enough(browser: Browser, page: str) -> None:
    """From the first key: over the skip link to a model, and to an inference of it."""
    browser.open(page)

    def press(key: str) -> None:
        browser.driver.switch_to.active_element.send_keys(key)

    def focused() -> str:
        return str(browser.script("return document.activeElement.textContent"))

    press(Keys.TAB)
    assert focused() == "Skip to content"
    press(Keys.ENTER)
    assert browser.script("return document.activeElement.id") == "main"
    for _ in range(10):
        press(Keys.TAB)
        if focused() == page_run.GOOD:
            break
    press(Keys.ENTER)
    browser.until(lambda: browser.script("return document.querySelector('h1').textContent") == page_run.GOOD)
    browser.until(lambda: browser.script("return document.activeElement.id") == "main")
    for _ in range(40):
        press(Keys.TAB)
        if "/inference/" in (browser.script("return document.activeElement.hash") or ""):
            break
    press(Keys.ENTER)
    browser.until(lambda: browser.all(".waterfall"))
    assert browser.complaints() == []


def test_it_is_chinese_in_a_chinese_browser(page: str, tmp_path: Path) -> None:
    """By the browser's own language; no English text of the table is left."""
    browser = Browser(tmp_path, "zh-CN")
    try:
        browser.open(page, "#/model/1")
        assert browser.script("return document.documentElement.lang") == "zh-Hans"
        headings = [heading.text for heading in browser.all("h2")]
        assert headings[:3] == ["延迟随时间的变化", "每秒调用次数", "延迟分布"]
        table = json.loads(browser.script("return document.getElementById('texts').textContent"))
        lines = {line for element in browser.all("body") for line in element.text.splitlines()}
        english = {
            texts["en"] for texts in table.values() if texts["en"] != texts["zh"] and " " in texts["en"]
        }
        assert not lines & english
        assert browser.complaints() == []
    finally:
        browser.driver.quit()


def test_dark_is_dark(browser: Browser, page: str) -> None:
    """As the system prefers; the charts follow at once."""
    shades = []
    font = "return document.getElementById('chart-latency').layout.font.color"
    for scheme in ("dark", "light"):
        told = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", told)
        if scheme == "dark":
            browser.open(page, "#/model/1")
        else:
            browser.until(lambda: browser.script(font) != shades[0][1])
        shades.append(
            browser.script(
                "return [getComputedStyle(document.body).backgroundColor, "
                "document.getElementById('chart-latency').layout.font.color]"
            )
        )
    brightness = [sum(map(int, re.findall(r"\d+", back)[:3])) for back, _ in shades]
    assert brightness[0] < 150
    assert brightness[1] > 600


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
