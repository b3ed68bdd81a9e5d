"""The page's data, files and report, without a browser: the folder `browser` has that."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import http.client
import json
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly", reason="the extra page")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from starlette.testclient import TestClient

from desk import page_run
from desk.otlp import BEGAN, PROTOBUF, number, traces
from otel_quantmon import semconv
from otel_quantmon.desk import queries
from otel_quantmon.desk.overview import overview
from otel_quantmon.desk.page import Page, assets, write_report
from otel_quantmon.desk.page.application import application
from otel_quantmon.desk.page.timeline import anomalies
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.desk.store import Store
from otel_quantmon.errors import DeskError

STATIC = Path(assets.__file__).parent / "static"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `page_run`."""
    path = tmp_path_factory.mktemp("page") / "run.db"
    page_run.write(path)
    return path


@pytest.fixture
def client(run: Path) -> TestClient:
    return TestClient(application(run, threading.Event()))


@pytest.fixture
def reader(run: Path) -> Iterator[sqlite3.Connection]:
    database = open_reader(run)
    yield database
    database.close()


def answer(client: TestClient, path: str) -> Any:
    found = client.get(path)
    assert found.status_code == 200
    return found.json()


def test_a_row_for_each_model_as_the_terminal_has_it(client: TestClient, reader: sqlite3.Connection) -> None:
    """The page and the terminal tell the same numbers, since both are given them by `desk.overview`."""
    told = answer(client, "/api/run")
    rows = overview(reader, queries.newest_time(reader))
    assert [model["name"] for model in told["models"]] == [page_run.HOSTILE, page_run.GOOD]
    for shown, row in zip(told["models"], rows, strict=True):
        assert (shown["calls"], shown["errors"], shown["rate"]) == (row.calls, row.errors, row.rate)
        assert (shown["p50"], shown["p95"], shown["p99"]) == (row.p50, row.p95, row.p99)
        assert (shown["drift"], shown["relative_error"]) == (row.drift, row.relative_error)
        assert (shown["clip_ratio"], shown["memory"]) == (row.clipping, row.memory)
        assert (shown["anomaly_counts"], shown["active_anomalies"]) == (row.anomalies, list(row.active))
    assert told["run"]["command"] == ["python", "app.py"]


def test_charts_hold_what_the_store_holds(client: TestClient, reader: sqlite3.Connection) -> None:
    """Calls and quantiles of each step are those of its own histogram; gauges are as they were sent."""
    model = next(found for found in queries.models(reader) if found.name == page_run.GOOD)
    told = answer(client, f"/api/models/{model.id}")
    steps = queries.intervals(
        reader, semconv.METRIC_INFERENCE_DURATION, model.id, int(told["began"] * 1e6), told["step"]
    )
    assert told["latency"]["calls"] == [each.values.count for each in steps]
    assert told["latency"]["p99"] == [each.values.quantile(0.99) for each in steps]
    assert sum(told["latency"]["calls"]) == told["calls"] == page_run.SECONDS * 40 + 3
    assert told["latency"]["time"] == [each.time / 1e6 for each in steps]
    errors = {
        (line["attributes"][semconv.OUTPUT_NAME], line["attributes"][semconv.STATISTIC]): line
        for line in told["error_lines"]
    }
    assert set(errors) == {(o, s) for o in ("scores", "<i>boxes") for s in ("mean", "max")}
    assert len(errors["scores", "mean"]["value"]) == page_run.SECONDS
    assert [each[2] for each in told["distribution"]] == [
        count
        for _, _, count in queries.distribution(
            reader, semconv.METRIC_INFERENCE_DURATION, model.id
        ).buckets.edges()
    ]


def test_the_baseline_is_what_was_before_drift_was_told(client: TestClient) -> None:
    """Its mean is that which drift is a share of; its band holds the calls of the time in which it was learnt."""
    told = answer(client, "/api/models/1")["baseline"]
    assert told["mean"] == pytest.approx(0.004)
    assert sum(count for _, _, count in told["edges"]) == 15 * 40
    assert 0.001 < told["low"] < 0.004 < told["high"] < 0.01


def test_an_anomaly_has_a_beginning_an_end_and_a_trace(client: TestClient) -> None:
    """Of one that was left both times are told, of one that lasts only the first; the newest comes first."""
    found = answer(client, "/api/models/1")["anomalies"]
    assert [(each["type"], each["left"] is None) for each in found] == [
        ("latency_drift", True),
        ("relative_error", False),
    ]
    assert found[1]["left"] - found[1]["time"] == 14_000
    assert found[0]["trace_id"] == f"{2:032x}"


def test_without_events_an_anomaly_has_its_times_from_the_gauge(tmp_path: Path) -> None:
    """An application that exports no logs has them on the axis of time too, as exactly as metrics are exported."""
    store = Store(tmp_path / "run.db", facts={})
    store.start()
    for second, active in ((1, 0), (2, 1), (3, 1), (4, 0), (5, 1)):
        request = number("quantmon.anomaly.active", active, second, anomaly_type="clipping")
        store.submit("metrics", PROTOBUF, request.SerializeToString()).result(60)
    store.close()
    reader = open_reader(tmp_path / "run.db")
    found = anomalies(reader, 1)
    reader.close()
    assert [(each["type"], each["time"], each["left"]) for each in found] == [
        ("clipping", BEGAN / 1e6 + 5000, None),
        ("clipping", BEGAN / 1e6 + 2000, BEGAN / 1e6 + 4000),
    ]


def test_lists_lead_to_traces(client: TestClient) -> None:
    """The slowest first, what failed, what is far from float; each with its trace, in the order of starts."""
    told = answer(client, "/api/models/1")
    slow = [each["duration"] for each in told["slow"]]
    assert slow == sorted(slow, reverse=True)
    assert [(each["span_id"], each["error_type"]) for each in told["failed"]] == [(f"{5:016x}", "Fail")]
    assert [(each["span_id"], each["relative_error"]) for each in told["wrong"]] == [(f"{2:016x}", 0.097)]
    spans = answer(client, f"/api/traces/{told['failed'][0]['trace_id']}")
    assert [(each["name"], each["depth"], each["offset"]) for each in spans] == [
        ("POST /detect", 0, 0.0),
        (f"inference {page_run.GOOD}", 1, 0.003),
    ]
    assert spans[1]["pid"] == 4242


def test_a_trace_that_is_a_circle_has_an_end(store: Store, send: Any) -> None:
    """Spans that are each other's parents, as a broken exporter may send them, are shown all the same."""
    request = traces(2)
    for span, parent in zip(request.resource_spans[0].scope_spans[0].spans, (2, 1), strict=True):
        span.trace_id, span.parent_span_id = (9).to_bytes(16, "big"), parent.to_bytes(8, "big")
    send(request)
    spans = answer(TestClient(application(store.path, threading.Event())), f"/api/traces/{9:032x}")
    assert [each["depth"] for each in spans] == [1, 1]


@pytest.mark.parametrize(
    "path",
    ["/api/models/99", f"/api/models/{10**30}", "/api/traces/zz", f"/api/traces/{1:031x}", "/static/../x"],
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    """Nothing of a wrong address reaches SQLite as a fault, or a file system."""
    assert client.get(path).status_code == 404


def test_a_run_without_a_model_is_shown(store: Store) -> None:
    """Before the first inference there is a page, too."""
    told = answer(TestClient(application(store.path, threading.Event())), "/api/run")
    assert told["models"] == []
    assert told["run"]["newest"] is None


def test_every_answer_forbids_what_it_does_not_need(client: TestClient) -> None:
    """Scripts come from the page's own files alone, and no other site may read or frame it."""
    for path in ("/", "/api/run", "/static/style.css", "/static/plotly.js", "/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"https?:|//|\*", policy)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_the_page_names_no_other_host() -> None:
    """Neither its files nor the page itself fetch anything from elsewhere; the SVG namespace is a name."""
    for file in sorted(STATIC.iterdir()):
        found = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text("utf-8")))
        assert found <= {"http://www.w3.org/2000/svg"}, file.name


def test_another_name_of_this_host_is_refused(run: Path) -> None:
    """DNS rebinding: a page of elsewhere whose name leads to 127.0.0.1 gets nothing."""
    page = Page(run)
    page.start()
    try:
        for host, status in (("127.0.0.1", 200), ("localhost", 200), ("evil.example", 400)):
            connection = http.client.HTTPConnection(
                "127.0.0.1", int(page.address.rpartition(":")[2]), timeout=60
            )
            connection.request("GET", "/api/run", headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()
    finally:
        page.stop()


def test_changes_are_told_as_they_are_written(store: Store, send: Any) -> None:
    """One event at once, and one after a commit; the stream ends with the page."""
    page = Page(store.path)
    page.start()
    connection = http.client.HTTPConnection(page.address.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", "/api/changes")
        stream = connection.getresponse()
        assert stream.headers["content-type"].startswith("text/event-stream")
        first = [stream.readline() for _ in range(3)]
        send(traces(1))
        second = [stream.readline() for _ in range(3)]
        assert first[0] == second[0] == b"event: change\n"
        assert first[1] != second[1]
    finally:
        page.stop()
    assert b"event: change" not in stream.read()
    connection.close()


class _Elements(html.parser.HTMLParser):
    """The scripts of a page, and what its elements lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._attributes: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._attributes = dict(attrs) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._attributes = None

    def handle_data(self, data: str) -> None:
        if self._attributes is not None:
            self.scripts.append((self._attributes, data))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_report_is_one_file_that_asks_for_nothing(run: Path, client: TestClient, tmp_path: Path) -> None:
    """It has the data that the page has, every trace that is listed, and runs only scripts of known content."""
    file = tmp_path / "report.html"
    write_report(run, file)
    found = _Elements(file.read_text("utf-8"))
    for tag, attributes in found.tags:
        assert tag != "script" or "src" not in attributes
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), tag
    scripts = {attributes.get("id"): text for attributes, text in found.scripts}
    data = json.loads(scripts["data"])
    assert data["run"] == answer(client, "/api/run")
    assert data["models"]["1"] == answer(client, "/api/models/1")
    assert data["traces"][f"{5:032x}"] == answer(client, f"/api/traces/{5:032x}")
    policy = next(a["content"] for t, a in found.tags if t == "meta" and a.get("http-equiv")) or ""
    allowed = set(re.findall(r"'sha256-[^']+'", policy))
    run_at_once = [text for attributes, text in found.scripts if not attributes.get("type")]
    assert allowed == {_hash(text) for text in (*run_at_once, scripts["start"], assets.charts_script())}
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy
    # The charts' code is packed, and the run is in it once: a mail can take it.
    assert file.stat().st_size < 4_000_000


def test_a_hostile_name_stays_inside_of_the_data(run: Path, tmp_path: Path) -> None:
    """No name can end the script that the data is in: there is no mark of markup in it."""
    file = tmp_path / "report.html"
    write_report(run, file)
    text = file.read_text("utf-8")
    assert "<script>window.harmed" not in text
    assert json.loads(assets.embedded({"name": page_run.HOSTILE})) == {"name": page_run.HOSTILE}
    assert not re.search("[<>&]", assets.embedded({"</script><!--": "&"}))


def test_a_report_that_cannot_be_written_leaves_the_old_one(run: Path, tmp_path: Path) -> None:
    """It is written beside it and then put in its place; the reason is told without a traceback."""
    with pytest.raises(DeskError, match="cannot be written"):
        write_report(run, tmp_path / "nowhere" / "report.html")
    file = tmp_path / "report.html"
    file.mkdir()
    with pytest.raises(DeskError, match="cannot be written"):
        write_report(run, file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.name != "posix", reason="no pipe in a folder, and no link for everybody")
def test_a_report_takes_no_place_from_a_pipe_or_a_link(run: Path, tmp_path: Path) -> None:
    """A device or a pipe gets the text and stays what it is; a link stays one, and its target has the report."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text("utf-8")))
    reader.start()
    write_report(run, pipe)
    reader.join(60)
    assert pipe.is_fifo()
    link, target = tmp_path / "link.html", tmp_path / "target.html"
    link.symlink_to(target)
    write_report(run, link)
    assert link.is_symlink()
    assert got == [target.read_text("utf-8")]


def test_without_plotly_it_is_said_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is an extra: who has not installed it is told how, before anything is served."""
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assets.charts_script.cache_clear()
    with pytest.raises(DeskError, match=r"pip install .otel-quantmon\[page\]"):
        Page(run)


def test_each_text_is_there_in_both_languages() -> None:
    """Chinese and English have the same keys and places for values, and every key in the scripts is in the table."""
    table = json.loads(assets.read("texts.json"))
    for key, texts in table.items():
        assert set(texts) == {"en", "zh"}, key
        assert all(texts.values()), key
        assert len({tuple(sorted(re.findall(r"\{\d\}", text))) for text in texts.values()}) == 1, key
    scripts = "".join(assets.read(name) for name in assets.SCRIPTS)
    used = set(re.findall(r'text\("([^"]+)"', scripts))
    assert used <= set(table)
    made = {
        *(f"anomaly.{kind}" for kind in semconv.ENUMERATIONS[semconv.ANOMALY_TYPE]),
        *(f"memory.{kind}" for kind in semconv.ENUMERATIONS[semconv.MEMORY_TYPE]),
    }
    assert made <= set(table)


def _luminance(colour: str) -> float:
    """Relative luminance, as https://www.w3.org/TR/WCAG22/#dfn-relative-luminance has it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_texts_can_be_told_from_their_background() -> None:
    """WCAG 2.2, level AA: 4.5 to 1 for text, 3 to 1 for lines of charts, in light and dark."""
    schemes = re.findall(r":root \{(.*?)\}", assets.read("style.css"), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", scheme))

        def contrast(one: str, other: str, colours: dict[str, str] = colours) -> float:
            low, high = sorted((_luminance(colours[one]), _luminance(colours[other])))
            return (high + 0.05) / (low + 0.05)

        for name in ("text", "soft", "accent", "bad", "good"):
            assert contrast(name, "card") >= 4.5, name
            assert contrast(name, "back") >= 4.5, name
        assert contrast("bad", "bad-back") >= 4.5
        assert contrast("soft", "chip") >= 4.5
        for place in range(1, 7):
            assert contrast(f"series-{place}", "card") >= 3, place
