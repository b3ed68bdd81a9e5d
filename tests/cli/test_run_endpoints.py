"""A program with an OTLP endpoint of its own under ``quantmon run``: that gets what it would have got."""

from __future__ import annotations

from pathlib import Path

from lifecycle.sink import Sink

from cli.running import counted, facts, needed, program, quantmon

pytestmark = needed


def test_an_endpoint_of_the_programs_own_gets_it_all(folder: Path) -> None:
    """What is sent to it without quantmon is sent with it: the same counts, the same number of spans as are kept."""
    command = program(folder, "call(load(), 777)")
    with Sink() as sink:
        done = quantmon(
            folder, "run", "--db", "run.db", "--", *command, variables=sink.variables(QUANTMON_SPANS="all")
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert sink.calls() == 777
        told = facts(folder / "run.db")
        assert sink.spans == told["accepted_spans"] > 0
    assert counted(folder / "run.db") == {"doubling": 777}
    assert told["forwarded_requests_sent"] > 1


def test_an_endpoint_that_is_gone_keeps_nobody_waiting(folder: Path) -> None:
    """The program ends as it would, quantmon some seconds later, and what was not taken is counted."""
    sink = Sink()
    variables = sink.variables()
    sink.stop()
    done = quantmon(
        folder, "run", "--db", "run.db", "--", *program(folder, "call(load(), 777)"), variables=variables
    )
    assert done.returncode == 0
    assert counted(folder / "run.db") == {"doubling": 777}
    told = facts(folder / "run.db")
    assert told["forwarded_requests_failed"] + told["forwarded_requests_dropped"] > 0


TURNS = """
import subprocess
from opentelemetry import metrics
first = len(sys.argv) == 1
session = load()
other = None
if first:
    other = subprocess.Popen(
        [sys.executable, __file__, "second"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
hears, says = (other.stdout, other.stdin) if first else (sys.stdin, sys.stdout)
for _ in range(5):
    if not first:
        hears.readline()
    call(session, 20)
    getattr(metrics.get_meter_provider(), "force_flush", lambda: None)()
    print("your turn", file=says, flush=True)
    if first:
        hears.readline()
if first:
    other.communicate()
"""


def test_processes_of_a_pod_that_send_totals_in_turns_count_once_each(folder: Path) -> None:
    """With one `service.instance.id` and cumulative metrics, as an endpoint has them: 100 calls of each are 200."""
    command = program(folder, TURNS)
    with Sink() as sink:
        variables = sink.variables(OTEL_RESOURCE_ATTRIBUTES="service.instance.id=pod-1")
        done = quantmon(folder, "run", "--db", "run.db", "--", *command, variables=variables)
        assert (done.returncode, done.stderr) == (0, "")
    assert counted(folder / "run.db") == {"doubling": 200}
