"""Many processes that send much at once: nothing that was accepted is lost, and views go on reading."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from otel_quantmon.desk import queries
from otel_quantmon.desk.overview import overview
from otel_quantmon.desk.receiver import Receiver

SENDERS, REQUESTS, SPANS = 4, 40, 250

_SENDER = """
import sys
from desk.otlp import durations, post, traces
address, sender, requests, spans = sys.argv[1], *map(int, sys.argv[2:])
accepted = [0, 0]
for number in range(requests):
    first = (sender * requests + number) * spans + 1
    for path, request, kind in (
        ("/v1/traces", traces(spans, first=first, process=str(sender)), 0),
        ("/v1/metrics", durations([spans, 0, 0], number + 1, start=number, process=str(sender)), 1),
    ):
        body = request.SerializeToString()
        while True:
            status, answer, headers = post(address, path, body)
            if status == 200:
                assert not answer, answer
                accepted[kind] += spans
                break
            # Full: what is asked again has to say so.
            assert status == 503 and headers["retry-after"] == "1", (status, answer)
print(*accepted)
"""


def test_four_processes_at_once(receiver: Receiver, read: sqlite3.Connection) -> None:
    """Every span and every call that was answered with 200 is there, once, whoever reads meanwhile."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", _SENDER, receiver.address, *map(str, (sender, REQUESTS, SPANS))],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for sender in range(SENDERS)
    ]
    seen = [0]
    while any(sender.poll() is None for sender in senders):
        found = overview(read, 0)
        seen.append(found[0].calls if found else 0)
    said = [sender.communicate()[0].split() for sender in senders]
    assert seen == sorted(seen), "a view goes forward alone"
    assert [sum(map(int, kind)) for kind in zip(*said, strict=True)] == [SENDERS * REQUESTS * SPANS] * 2
    (model,) = overview(read)
    assert model.calls == SENDERS * REQUESTS * SPANS
    (rows, distinct) = read.execute("SELECT count(*), count(DISTINCT span_id) FROM span").fetchone()
    assert rows == distinct == SENDERS * REQUESTS * SPANS
    facts = queries.facts(read)
    assert (facts["accepted_spans"], facts["accepted_points"]) == (rows, SENDERS * REQUESTS)
