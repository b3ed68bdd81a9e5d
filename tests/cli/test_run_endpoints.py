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
