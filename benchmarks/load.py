"""Whether the desk of ``quantmon run`` keeps up: 50,000 spans and 10,000 metric points a second from four processes.

``python benchmarks/load.py [--json FILE] [--seconds 60] [--spans 50000] [--points 10000] [--strict]`` in an environment
that has this package with its extras. The receiver and its store run in a process of their own, as under
``quantmon run``, and the live view is drawn twice a second from the same file. Senders wait for nothing but their own
answers, and send what was refused for want of room again. At the end all that was accepted is counted in the file.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from figures import conditions, spread, verdict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.console import Console

from otel_quantmon.desk import queries
from otel_quantmon.desk.overview import overview
from otel_quantmon.desk.recent import Recent
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.desk.terminal import live_view

SENDERS = 4
# In one request, as the SDK's batches of spans are, and the collections of a process with 25 models of 100 series each,
# which exports each second.
SPANS, MODELS, SERIES = 512, 25, 100
POINTS = MODELS * SERIES
MOST_MEGABYTES = 600.0
MOST_VIEW_SECONDS = 1.0
MOST_SPANS_KEPT = 1_000_000

_RECEIVER = """
import sys
from pathlib import Path
from otel_quantmon.desk.receiver import Receiver
from otel_quantmon.desk.store import Store
store = Store(Path(sys.argv[1]))
receiver = Receiver(store)
store.start()
receiver.start()
print(receiver.address, flush=True)
sys.stdin.readline()
receiver.stop()
store.close()
"""


def put(attributes: Any, given: dict[str, str]) -> None:
    """Add ``given`` to a message's attributes."""
    for key, value in given.items():
        pair = attributes.add()
        pair.key, pair.value.string_value = key, value


# What stands where ids and times are put, so that it can be found in the encoded request: no two of them overlap.
_TRACE, _SPAN = b"\xf1" * 16, b"\xf2" * 8
_START, _END = 0xF3F3F3F3F3F3F3F3, 0xF4F4F4F4F4F4F4F4


class Encoded:
    """A request that was encoded once, and is sent again and again with other ids and times: so it costs little."""

    def __init__(self, request: Any) -> None:
        body = request.SerializeToString()
        self._bytes = np.frombuffer(body, np.uint8).copy()
        marks = (_TRACE, _SPAN, _START.to_bytes(8, "little"), _END.to_bytes(8, "little"))
        self._places = [
            np.array([found.start() for found in re.finditer(re.escape(mark), body)], np.intp)[:, None]
            + np.arange(len(mark))
            for mark in marks
        ]

    def body(self, start: int, end: int) -> bytes:
        """With these times, in nanoseconds, and random ids: those of traces are, and that costs an index most."""
        traces, spans, starts, ends = self._places
        self._bytes[traces] = np.frombuffer(os.urandom(traces.size), np.uint8).reshape(traces.shape)
        self._bytes[spans] = np.frombuffer(os.urandom(spans.size), np.uint8).reshape(spans.shape)
        self._bytes[starts] = np.frombuffer(start.to_bytes(8, "little"), np.uint8)
        self._bytes[ends] = np.frombuffer(end.to_bytes(8, "little"), np.uint8)
        return bytes(self._bytes)


class Messages:
    """Requests of one process."""

    def __init__(self, sender: int) -> None:
        process = {"service.instance.id": str(sender), "service.name": "load"}
        model = {"quantmon.runtime.name": "onnxruntime", "quantmon.operation.name": "run"}
        request: Any = ExportTraceServiceRequest()
        traced = request.resource_spans.add()
        put(traced.resource.attributes, process)
        spans = traced.scope_spans.add()
        spans.scope.name = "otel_quantmon"
        for _ in range(SPANS):
            span = spans.spans.add()
            span.name, span.trace_id, span.span_id = "inference net", _TRACE, _SPAN
            span.start_time_unix_nano, span.end_time_unix_nano = _START, _END
            put(span.attributes, {**model, "quantmon.model.name": "net"})
        self._spans = Encoded(request)
        request = ExportMetricsServiceRequest()
        measured = request.resource_metrics.add()
        put(measured.resource.attributes, process)
        metrics = measured.scope_metrics.add()
        metrics.scope.name = "otel_quantmon"
        duration, error = metrics.metrics.add(), metrics.metrics.add()
        duration.name, duration.unit = "quantmon.inference.duration", "s"
        duration.histogram.aggregation_temporality = 1
        error.name, error.unit = "quantmon.output.relative_error", "1"
        for number in range(MODELS):
            of = {**model, "quantmon.model.name": f"net{number}"}
            point = duration.histogram.data_points.add()
            point.explicit_bounds.extend([0.001, 0.002, 0.005])
            point.bucket_counts.extend([1, 0, 0, 0])
            point.count, point.sum = 1, 0.0005
            put(point.attributes, of)
            for output in range(SERIES - 1):
                point = error.gauge.data_points.add()
                point.as_double = 0.01
                put(
                    point.attributes,
                    {**of, "quantmon.output.name": f"out{output}", "quantmon.statistic": "mean"},
                )
        for point in (*duration.histogram.data_points, *error.gauge.data_points):
            point.start_time_unix_nano, point.time_unix_nano = _START, _END
        self._points = Encoded(request)

    def spans(self) -> bytes:
        """`SPANS` of them, each with ids of its own."""
        now = time.time_ns()
        return self._spans.body(now - 1_000_000, now)

    def points(self) -> bytes:
        """`POINTS` of them; one call of each model."""
        now = time.time_ns()
        return self._points.body(now - 10**9, now)


def post(address: str, path: str, body: bytes) -> bool:
    """Send a request; False if there is no room for it now."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=120)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 503) or (answer.status == 200 and said):
            raise RuntimeError(f"status {answer.status}: {said!r}")
        return answer.status == 200
    finally:
        connection.close()


def send(address: str, sender: int, seconds: float, spans: float, points: float) -> None:
    """Send for so long, at most so much a second, and print what was accepted: spans, points, requests refused."""
    messages = Messages(sender)
    kinds = {"/v1/traces": (messages.spans, SPANS, spans), "/v1/metrics": (messages.points, POINTS, points)}
    accepted = dict.fromkeys(kinds, 0)
    refused = 0
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        # What is later than the other by its own rate.
        path = min(kinds, key=lambda path: accepted[path] / kinds[path][2])
        make, count, rate = kinds[path]
        if accepted[path] >= rate * passed:
            time.sleep(0.002)
            continue
        body = make()
        while not post(address, path, body):
            refused += 1
            time.sleep(0.05)
        accepted[path] += count
    print(json.dumps([*accepted.values(), refused, time.process_time()]))


def watch(
    path: Path, process: psutil.Process, senders: list[subprocess.Popen[str]]
) -> dict[str, list[float]]:
    """Draw the view twice a second until the senders have ended: seconds, and memory and CPU of the receiver."""
    seen: dict[str, list[float]] = {"view": [], "megabytes": [], "calls": [], "cpu": [], "view_cpu": []}
    spent = sum(process.cpu_times()[:2])
    database, recent = open_reader(path), Recent()
    while any(sender.poll() is None for sender in senders):
        began, busy = time.perf_counter(), time.thread_time()
        found = overview(database, time.time_ns(), recent)
        Console(file=io.StringIO(), width=120).print(live_view(found, "load", 120))
        seen["view"].append(time.perf_counter() - began)
        seen["view_cpu"].append(time.thread_time() - busy)
        seen["cpu"].append(sum(process.cpu_times()[:2]) - spent)
        seen["megabytes"].append(process.memory_info().rss / 1e6)
        seen["calls"].append(sum(model.calls for model in found))
        time.sleep(max(0.0, 0.5 - seen["view"][-1]))
    database.close()
    return seen


def kept(path: Path) -> tuple[int, int, dict[str, Any]]:
    """Spans in the file, calls in its totals, and what it says of itself."""
    database: sqlite3.Connection = open_reader(path)
    try:
        (spans,) = database.execute("SELECT count(DISTINCT span_id) FROM span").fetchone()
        calls = sum(model.calls for model in overview(database))
        return spans, calls, queries.facts(database)
    finally:
        database.close()


def main() -> int:
    """Send, watch, count, print; 1 if something was lost, or a target was missed and --strict was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--spans", type=float, default=50_000.0, help="a second, of all senders")
    parser.add_argument("--points", type=float, default=10_000.0, help="a second, of all senders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed, too")
    parser.add_argument("--sender", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sender:
        address, number = arguments.sender
        rates = arguments.spans / SENDERS, arguments.points / SENDERS
        send(address, int(number), arguments.seconds, *rates)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.db")
        receiver = subprocess.Popen(
            [sys.executable, "-c", _RECEIVER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert receiver.stdin is not None
        assert receiver.stdout is not None
        address = receiver.stdout.readline().strip()
        given = [
            f"--seconds={arguments.seconds}",
            f"--spans={arguments.spans}",
            f"--points={arguments.points}",
        ]
        began = time.monotonic()
        senders = [
            subprocess.Popen(
                [sys.executable, __file__, *given, "--sender", address, str(number)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(SENDERS)
        ]
        seen = watch(path, psutil.Process(receiver.pid), senders)
        took = time.monotonic() - began
        said = [json.loads(sender.communicate()[0]) for sender in senders]
        receiver.stdin.close()
        receiver.wait()
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        spans, points, refused, sending = (sum(counts) for counts in zip(*said, strict=True))
        in_file, calls, facts = kept(path)
    lost = {
        "spans": spans - facts["accepted_spans"],
        "points": points - facts["accepted_points"],
        "calls": points // SERIES - calls,
        # The oldest go when there are many, and are counted; the newest million have to be there.
        "rows of spans": spans - facts.get("pruned_spans", 0) - in_file,
        "newest spans": max(0, min(spans, MOST_SPANS_KEPT) - in_file),
    }
    cores = {
        "receiver": seen["cpu"][-1] / arguments.seconds,
        "views": sum(seen["view_cpu"]) / arguments.seconds,
        "senders": sending / arguments.seconds,
    }
    late = seen["megabytes"][len(seen["megabytes"]) // 2 :]
    report: dict[str, Any] = {
        "conditions": conditions(("opentelemetry-proto", "protobuf", "starlette", "uvicorn", "rich")),
        "seconds": arguments.seconds,
        "accepted": {"spans": spans, "points": points, "refused_requests": refused},
        "a_second": {"spans": spans / arguments.seconds, "points": points / arguments.seconds},
        "lost": lost,
        "file_megabytes": size,
        "receiver_megabytes": {"most": max(seen["megabytes"]), "second_half": spread(late)},
        "view_seconds": spread(seen["view"]),
        "views": len(seen["view"]),
        # Seconds of one core in a second of the load.
        "cores": cores,
        "took": took,
    }
    targets = {
        "nothing that was accepted is lost": not any(lost.values()),
        f"{arguments.spans:,.0f} spans a second": spans >= 0.99 * arguments.spans * arguments.seconds,
        f"{arguments.points:,.0f} points a second": points >= 0.99 * arguments.points * arguments.seconds,
        f"the receiver stays under {MOST_MEGABYTES:.0f} MB": max(seen["megabytes"]) < MOST_MEGABYTES,
        f"a view is drawn in under {MOST_VIEW_SECONDS:g} s": spread(seen["view"])["median"]
        < MOST_VIEW_SECONDS,
        "a view never goes back": seen["calls"] == sorted(seen["calls"]),
    }
    print(
        f"{spans:,} spans and {points:,} points in {arguments.seconds:g} s, {spans / arguments.seconds:,.0f} and "
        f"{points / arguments.seconds:,.0f} a second; {refused} requests were refused for a while; "
        f"receiver {max(seen['megabytes']):.0f} MB, file {size:.0f} MB, {len(seen['view'])} views of "
        f"{spread(seen['view'])['median'] * 1e3:.0f} ms; cores: "
        + ", ".join(f"{who} {share:.2f}" for who, share in cores.items())
    )
    for what, reached in targets.items():
        print(f"{verdict(reached=reached)}  {what}")
    report["targets"] = targets
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    failed = any(lost.values()) or (arguments.strict and not all(targets.values()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
