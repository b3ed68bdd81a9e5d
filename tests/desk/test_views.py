"""What the views show of a run whose numbers are fixed: the terminal's pictures, the summary, the comparison of two."""

from __future__ import annotations

import io
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from rich.console import Console
from terminal_pictures import check_picture

from otel_quantmon import semconv
from otel_quantmon.cli import main
from otel_quantmon.desk import queries
from otel_quantmon.desk.histogram import Histogram
from otel_quantmon.desk.overview import Overview, overview
from otel_quantmon.desk.pace import Pace
from otel_quantmon.desk.recent import Recent
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.desk.store import Store
from otel_quantmon.desk.terminal import live_view, summary

from .otlp import BEGAN, DELTA, MODEL, PROTOBUF, SECOND, durations, number

PICTURES = Path(__file__).parent / "pictures"
BOUNDS = (0.001, 0.002, 0.005, 0.01)
NOW = BEGAN + 40 * SECOND
FACTS = {
    "command": ["python", "app.py", "[bold]"],
    "started": BEGAN,
    "ended": BEGAN + 12_345 * 10**6,
    "exit_status": 3,
    "rejected_points": 2,
}


def an_overview(name: str, **told: Any) -> Overview:
    """Of a model with all that can be known."""
    found: dict[str, Any] = {
        "model": queries.Model(1, name, "onnxruntime", "qdq", "CPUExecutionProvider", {}),
        "calls": 123_456,
        "errors": {"timeout": 3, "ValueError": 1},
        "rate": 1234.5,
        "durations": Histogram(123_456, 150.0, 0.0009, 0.25, None),
        "p50": 0.00115,
        "p95": 0.0024,
        "p99": 0.0123,
        "drift": 0.62,
        "relative_error": 0.0213,
        "clipping": 0.004,
        "memory": 13_434_880,
        "anomalies": {"latency_drift": 2, "clipping": 1},
        "active": (),
        "loads": 4,
        "suppressed_spans": 100,
        "recent": tuple(None if place < 8 else 0.001 + place % 7 * 0.0004 for place in range(40)),
    }
    return Overview(**{**found, **told})


def quiet(name: str) -> Overview:
    """Of a model of which hardly anything is known."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("rate", "p50", "p95", "p99", "drift", "relative_error", "clipping", "memory"), None
    )
    return an_overview(
        name,
        calls=0,
        errors={},
        durations=Histogram(0, 0.0, None, None, None),
        anomalies={},
        loads=1,
        recent=(None,) * 40,
        **nothing,
    )


# Names come from files: markup and control characters are shown, and do nothing.
MODELS = [an_overview("detector_int8"), quiet("[red]a name with markup[/red]")]


@pytest.mark.parametrize("width", [170, 100, 60])
def test_the_live_view(width: int) -> None:
    """The picture is the one that was looked at."""
    check_picture(
        PICTURES / f"live-{width}.svg", live_view(MODELS, "quantmon 00:00:12  python app.py", width), width
    )


@pytest.mark.parametrize(("width", "name"), [(20, "detector…"), (40, "detector_i…")])
def test_a_long_command_leaves_room_for_the_models(width: int, name: str) -> None:
    """The head is one line, cut at the screen's width and not at the table's; models have names and calls below it."""
    head = f"quantmon 00:00:01  python app.py {'--option value ' * 12}"
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as drawn:
        console.print(live_view([an_overview("detector_int8")], head, width))
    first, _, row = drawn.get().splitlines()
    assert first == f"{head[: width - 1]}…"
    assert row.split()[:2] == [name, "123,456"]


def test_the_summary() -> None:
    """As above."""
    check_picture(
        PICTURES / "summary.svg", summary(MODELS, FACTS, ["kept in run.db: quantmon show run.db"]), 100
    )


def test_nothing_yet() -> None:
    """Without a model it says what may be wrong."""
    facts = {"command": ["true"], "ended": NOW, "exit_status": 0}
    check_picture(PICTURES / "empty.svg", summary([], facts), 100)


def of_process(request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest:
    """The same point without the model's attributes."""
    (point,) = request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    kept = [each for each in point.attributes if each.key not in MODEL]
    del point.attributes[:]
    point.attributes.extend(kept)
    return request


def fill(path: Path, spread: list[int], **told: Any) -> Path:
    """A run of one model in the file ``path``."""
    store = Store(path, facts={"command": json.dumps(["app"])})
    store.start()
    memory = told.pop("memory", 1 << 24)
    error = told.pop("relative_error", 0.01)
    for request in (
        durations(spread, 33, bounds=BOUNDS, total=sum(spread) * 0.0015, ends=(0.0005, 0.02), **told),
        durations([1, 0, 0, 0, 0], 34, bounds=BOUNDS, total=0.001, **{"error.type": "ValueError"}),
        number(
            "quantmon.memory.usage",
            memory,
            34,
            kind="sum",
            temporality=DELTA,
            monotonic=False,
            memory_type="load_rss",
        ),
        number("quantmon.output.relative_error", error, 34, output_name="y", statistic="mean"),
        number("quantmon.output.relative_error", 9.0, 34, output_name="y", statistic="max"),
        number("quantmon.input.clip_ratio", 0.002, 34, input_name="x"),
        number("quantmon.inference.duration.drift", 0.25, 31),
        number("quantmon.inference.window.duration", 0.0012, 34, statistic="p50"),
        number("quantmon.anomalies", 2, 34, kind="sum", temporality=DELTA, anomaly_type="clipping"),
        number("quantmon.anomaly.active", 1, 33, anomaly_type="stall"),
        number("quantmon.anomaly.active", 0, 34, anomaly_type="stall"),
        number("quantmon.anomaly.active", 1, 34, anomaly_type="clipping"),
        of_process(number("quantmon.anomaly.active", 1, 34, anomaly_type="memory_growth")),
        of_process(number("quantmon.anomaly.active", 1, 34, process="other", anomaly_type="timeout")),
    ):
        store.submit("metrics", PROTOBUF, request.SerializeToString()).result(60)
    store.close()
    return path


def test_an_anomaly_that_is_on_comes_before_those_that_were() -> None:
    """The live view says which is on now, however often others were; the summary, which was on at the end."""
    row = an_overview("net", active=("clipping",))
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(live_view([row], "quantmon", 200), summary([row], FACTS))
    shown = console.export_text()
    assert "clipping now +1" in shown
    assert re.search(r"1 +anomaly +clipping, on at the end *$", shown, re.MULTILINE)
    assert re.search(r"2 +anomalies +latency_drift *$", shown, re.MULTILINE)


def test_an_overview_is_read_from_the_store(tmp_path: Path) -> None:
    """Each number, while the run lasts and afterwards; quantiles of late are those of the process's own window."""
    database = open_reader(fill(tmp_path / "run.db", [50, 30, 15, 4, 1]))
    (found,) = overview(database, NOW)
    assert (found.calls, found.errors, found.rate) == (101, {"ValueError": 1}, 10.1)
    assert (found.p50, found.p95) == (0.0012, None)
    assert (found.drift, found.relative_error, found.clipping, found.memory) == (0.25, 0.01, 0.002, 1 << 24)
    assert found.anomalies == {"clipping": 2}
    assert found.active == ("clipping", "memory_growth")
    assert [place for place, mean in enumerate(found.recent) if mean is not None] == [32, 33]
    (found,) = overview(database)
    assert found.rate == pytest.approx(101 / (34 + 0.151 / 101))
    assert found.p50 == pytest.approx(0.001, rel=0.03)
    assert found.p99 == pytest.approx(0.01, rel=0.03)
    database.close()


def test_quantiles_of_several_processes_are_of_their_buckets(store: Store, read: sqlite3.Connection) -> None:
    """Two processes with windows of their own: 0.5 ms in one and 4 ms in the other make neither's median."""
    for process, spread in (("one", [10, 0, 0, 0, 0]), ("two", [0, 0, 10, 0, 0])):
        for request in (
            durations(spread, 30, bounds=BOUNDS, process=process),
            number("quantmon.inference.window.duration", 9.0, 30, process=process, statistic="p50"),
        ):
            store.submit("metrics", PROTOBUF, request.SerializeToString()).result(60)
    (model,) = queries.models(read)
    late = Histogram.joined(
        interval.values
        for interval in queries.intervals(read, semconv.METRIC_INFERENCE_DURATION, model.id, BEGAN)
    )
    found = queries.durations(read, model.id, late)
    assert not found.exact
    assert found.p50 == 0.001
    assert found.p95 is not None
    assert 0.002 < found.p95 <= 0.005


def test_a_view_reads_only_what_is_new(store: Store, read: sqlite3.Connection) -> None:
    """Drawn again and again it shows what one drawn once shows, and needs no point that it has read before."""

    def send(process: str, spread: list[int], time: float) -> None:
        request = durations(spread, time, start=time - 1, bounds=BOUNDS, process=process)
        store.submit("metrics", PROTOBUF, request.SerializeToString()).result(60)

    recent = Recent()
    assert overview(read, BEGAN, recent) == []
    # One process is late, and the first points are forgotten in time.
    now = BEGAN
    for second in range(1, 60):
        send("one", [second, 0, 1, 0, 0], second)
        if second > 3:
            send("two", [0, 2, 0, 0, 0], second - 2.5)
        now = BEGAN + second * SECOND
        assert overview(read, now, recent) == overview(read, now)
    (before,) = overview(read, now, recent)
    assert before.rate is not None
    assert before.rate > 0
    writer = sqlite3.connect(store.path)
    writer.execute("DELETE FROM point WHERE time <= ?", (now - SECOND,))
    writer.commit()
    writer.close()
    assert overview(read, now, recent) == [before]
    assert overview(read, now) != [before]


def test_a_view_that_takes_long_is_drawn_seldom() -> None:
    """Views take a fifth of the time at most: after one of 2 s the next is due in 8 s."""
    now = [100.0]
    pace = Pace(lambda: now[0])
    assert pace.rest() == 0
    with pace.view():
        now[0] += 2
    assert pace.rest() == 8
    # One that is asked for nevertheless, and is short, does not make it earlier.
    with pace.view():
        now[0] += 1
    assert pace.rest() == 7
    now[0] += 7
    assert pace.rest() == 0


def test_one_long_call_has_no_high_rate(store: Store, read: sqlite3.Connection) -> None:
    """A series begins when its first call ends: 5 s of it and 10 ms until the export are a fifth of a call a second."""
    request = durations([0, 0, 0, 0, 1], 30.01, start=30, bounds=BOUNDS, total=5.0, ends=(5.0, 5.0))
    store.submit("metrics", PROTOBUF, request.SerializeToString()).result(60)
    (found,) = overview(read)
    assert found.rate == pytest.approx(1 / 5.01)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(list(map(str, arguments)))
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_slower_run_is_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand calls moved up by a bucket: worse, by the test and by more than a tenth; the status says so."""
    before = fill(tmp_path / "before.db", [900, 80, 15, 4, 1])
    after = fill(tmp_path / "after.db", [80, 900, 15, 4, 1], memory=1 << 25, relative_error=0.012)
    status, out, _ = run(capsys, "diff", before, after)
    assert status == 1
    assert "differ by more than chance" in out
    assert "worse: net: p50, p95, relative error, memory" in out
    status, out, _ = run(capsys, "diff", before, after, "--json")
    told = json.loads(out)
    assert status == 1
    assert told["models"]["net"]["worse"] == ["p50", "p95", "relative error", "memory"]
    assert told["models"]["net"]["duration_test"]["p"] < 1e-6
    assert told["models"]["net"]["memory"] == {
        "before": 1 << 24,
        "after": 1 << 25,
        "ratio": 2.0,
        "worse": True,
    }
    status, _, _ = run(capsys, "diff", before, after, "--worse-by", "5")
    assert status == 0


def test_a_difference_that_chance_makes_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten calls, of which some are slower: as it may happen, so nothing is worse. The faster run never is."""
    before = fill(tmp_path / "before.db", [8, 2, 0, 0, 0])
    after = fill(tmp_path / "after.db", [5, 4, 1, 0, 0])
    status, out, _ = run(capsys, "diff", before, after)
    assert status == 0
    assert "do not differ by more than chance" in out
    assert "nothing is worse" in out
    slow = fill(tmp_path / "slow.db", [80, 900, 15, 4, 1])
    fast = fill(tmp_path / "fast.db", [900, 80, 15, 4, 1])
    assert run(capsys, "diff", slow, fast)[0] == 0


def test_durations_that_cannot_be_tested_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Buckets of one run across those of the other say nothing: the last line does not call that all well."""
    files = []
    for name, bounds in (("before", (0.001, 0.003)), ("after", (0.002, 0.004))):
        store = Store(tmp_path / f"{name}.db", facts={"command": "[]"})
        store.start()
        store.submit("metrics", PROTOBUF, durations([0, 9, 0], 1, bounds=bounds).SerializeToString()).result(
            60
        )
        store.close()
        files.append(store.path)
    status, out, _ = run(capsys, "diff", *files)
    assert status == 0
    assert "The durations cannot be tested" in out
    assert out.endswith("nothing that was tested is worse; not tested: the durations of net\n")


def test_models_by_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that was renamed is compared if that is told; without a common one the status is 2."""
    before = fill(tmp_path / "before.db", [8, 2, 0, 0, 0])
    after = fill(tmp_path / "after.db", [8, 2, 0, 0, 0], **{"quantmon.model.name": "other"})
    assert run(capsys, "diff", before, after, "--map", "net=other")[0] == 0
    status, _, error = run(capsys, "diff", before, after, "--map", "nett=other")
    assert (status, error) == (2, f"quantmon: error: {before} has no model 'nett': it has 'net'\n")
    # Else the model would silently not be compared, beside others that are.
    status, _, error = run(capsys, "diff", before, before, "--map", "net=other")
    assert (status, error) == (2, f"quantmon: error: {before} has no model 'other': it has 'net'\n")


def test_mistakes_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that are not there, or of something else."""
    status, _, error = run(capsys, "show", tmp_path / "no.db")
    assert (status, error) == (2, f"quantmon: error: {tmp_path / 'no.db'}: no such file\n")
    (tmp_path / "text.db").write_text("text" * 200)
    status, _, error = run(capsys, "diff", tmp_path / "text.db", tmp_path / "text.db")
    assert status == 2
    assert "is no file of `quantmon run --db`" in error
    status, _, error = run(capsys, "show", tmp_path)
    assert (status, error) == (2, f"quantmon: error: {tmp_path}: it is a folder\n")
    newer = fill(tmp_path / "newer.db", [1, 0, 0, 0, 0])
    database = sqlite3.connect(newer)
    database.execute("UPDATE meta SET value = value + 1 WHERE key = 'schema'")
    database.commit()
    database.close()
    status, _, error = run(capsys, "show", newer)
    assert status == 2
    assert "was written by a newer otel-quantmon" in error
    assert error.endswith(": pip install --upgrade otel-quantmon\n")
    database = sqlite3.connect(newer)
    database.execute("UPDATE meta SET value = value - 1 WHERE key = 'schema'")
    database.execute("UPDATE model SET name = 'other'")
    database.commit()
    database.close()
    status, _, error = run(capsys, "diff", fill(tmp_path / "before.db", [1, 0, 0, 0, 0]), newer)
    assert status == 2
    assert "no model is in both" in error
    assert "--map NAME=OTHER" in error


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary of an earlier run, or its lines of JSON."""
    path = fill(tmp_path / "run.db", [50, 30, 15, 4, 1])
    status, out, _ = run(capsys, "show", path)
    assert status == 0
    assert "net (onnxruntime, qdq)" in out
    assert "101  calls" in out
    lines = out.splitlines()
    assert lines == [line.rstrip() for line in lines], "no spaces for a terminal's sake"
    status, out, _ = run(capsys, "show", path, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["calls"] for line in lines if line["type"] == "model"] == [101]
    (metric,) = {line["metric"] for line in lines if line["type"] == "series" and line["kind"] == "histogram"}
    assert metric == semconv.METRIC_INFERENCE_DURATION.name
