"""What becomes of samples where a worker fails, is stopped or is killed: each counts once, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported import Exported
from lifecycle.programs import environment

from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.references import FloatModels, read_models
from otel_quantmon.evaluator.source import Claimed
from otel_quantmon.evaluator.worker import EvaluatorWorker
from otel_quantmon.fidelity.remote.record import SampleRecord
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts

from .conftest import files, outcomes, suspects

Made = Callable[..., SampleRecord]
Put = Callable[..., None]
MakeWorker = Callable[..., EvaluatorWorker]


class Crash(BaseException):
    """The end of a process: nothing after it is run but what Python runs."""


class Killed(DirectorySource):
    """A source whose worker is gone at a given moment."""

    def __init__(self, directory: str, moment: str) -> None:
        super().__init__(directory, 100.0)
        self.moment = moment

    def claim(self, most: int, seconds: float) -> list[Claimed]:
        found = super().claim(most, seconds)
        if self.moment == "claimed":
            raise Crash
        return found

    def settle(self, *_: Any) -> None:
        raise Crash


class Fatal(FloatModels):
    """Float models that end the worker over one sample, as a runtime that crashes does."""

    fatal = ""

    def run(self, settings: Any, records: Any) -> Any:
        if any(record.id == self.fatal for record in records):
            raise Crash
        return super().run(settings, records)


def test_what_ends_its_workers_is_rejected_and_nothing_else(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path, models: Path
) -> None:
    """One of five is a suspect each time, though others were evaluated and not counted: after three it is rejected."""

    class Gone(DirectorySource):
        """Of a worker that is gone nothing is settled, and nothing counted."""

        settle = Killed.settle

    records = [made(number) for number in range(5)]
    put(*records)
    deadly = Fatal(read_models(str(models)), 1)
    deadly.fatal = records[2].id
    for life in range(1, 4):
        gone = worker(f"life {life}", models=deadly, source=Gone(str(directory), 100.0))
        gone._ledger.add = lambda _: set()
        with pytest.raises(Crash):
            gone.run(until_empty=True)
        assert suspects(directory) == {records[2].id: life}
        for path in (directory / "claimed").iterdir():
            path.rename(directory / "new" / path.name)
    worker("last", models=deadly).run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 4, "rejected": 1}
    assert "3 workers" in (directory / "rejected" / f"{records[2].id}.txt").read_text()


class Failing(FloatModels):
    """Float models whose own code fails over one sample."""

    bad = ""

    def run(self, settings: Any, records: Any) -> Any:
        if any(record.id == self.bad for record in records):
            raise RuntimeError("not thought of")
        return super().run(settings, records)

    def compared(self, run: Any) -> Any:
        if run.task.model == "magika_odd":
            raise ZeroDivisionError
        return super().compared(run)


def test_a_sample_that_our_code_fails_over_is_rejected_at_once(
    made: Made,
    put: Put,
    worker: MakeWorker,
    exported: Exported,
    directory: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a run, in a comparison, or for the fleet: others of its batch are evaluated, and the worker goes on."""
    models.write_text(models.read_text() + "reference_batch = 4\n")
    records = [made(number) for number in range(4)]
    odd, fleets = made(model="magika_odd"), made(host="here")
    put(*records, odd, fleets)
    failing = Failing(read_models(str(models)), 1)
    failing.bad = records[1].id
    one = worker(models=failing)
    one._reporting.join_fleet(directory / "fleet.sqlite", "worker")
    fleet = one._reporting.fleet
    assert fleet is not None
    note = fleet.note

    def noted(key: Any, record: SampleRecord, comparisons: Any) -> None:
        if record.host == "here":
            raise ValueError("nor this")
        note(key, record, comparisons)

    monkeypatch.setattr(fleet, "note", noted)
    one.run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 3, "rejected": 3}
    reasons = {path.stem: path.read_text().strip() for path in (directory / "rejected").glob("*.txt")}
    assert reasons == {
        records[1].id: "its evaluation failed: RuntimeError: not thought of",
        odd.id: "its evaluation failed: ZeroDivisionError:",
        fleets.id: "its evaluation failed: ValueError: nor this",
    }


def test_an_instrument_that_raises_stops_no_worker(
    made: Made,
    put: Put,
    worker: MakeWorker,
    exported: Exported,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a sample is reported, or what was judged: each is counted once and settled, and those after it too."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    put(*(made(number) for number in range(3)))
    one = worker()
    evaluated, judge = one._reporting.evaluated, one._reporting._judging.run
    failed: list[str] = []

    def reporting(*arguments: Any) -> None:
        if "report" not in failed:
            failed.append("report")
            raise RuntimeError("of an exporter")
        evaluated(*arguments)

    def judging(*, at_once: bool = False) -> bool:
        if "judgement" not in failed:
            failed.append("judgement")
            raise RuntimeError("of a hook")
        return judge(at_once=at_once)

    monkeypatch.setattr(one._reporting, "evaluated", reporting)
    monkeypatch.setattr(one._reporting._judging, "run", judging)
    one.run(until_empty=True)
    assert sorted(failed) == ["judgement", "report"]
    assert outcomes(exported) == {"evaluated": 2}
    assert [files(directory, folder) for folder in ("new", "claimed", "rejected")] == [[], [], []]


def test_names_that_are_no_utf8_cost_one_sample_at_most(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path
) -> None:
    """In a reason, which goes to the state and to a file, and in the digest of a golden baseline's case."""
    named = {"\ud800": made().inputs["bytes"]}
    put(made(inputs={**named, "x": made().inputs["bytes"]}), made(inputs=named, golden=True))
    one = worker()
    one._reporting.join_fleet(directory / "fleet.sqlite", "worker")
    one.run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 1, "rejected": 1}


def test_quantization_of_another_type_than_the_tensor_s_is_no_fault(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path
) -> None:
    """Integers whose facts say codes of a float type have no range: the fleet gets what else there is."""
    odd = TensorFacts("bytes", "int32", None, QuantizationParameters((1.0,), (0,), "float8_e4m3fn"))
    put(made(facts=(odd,)))
    one = worker()
    one._reporting.join_fleet(directory / "fleet.sqlite", "worker")
    one.run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 1}


@pytest.mark.parametrize("moment", ["claimed", "counted"])
def test_a_worker_that_is_gone_leaves_nothing_behind(
    moment: str, made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path
) -> None:
    """After its lease each sample is another worker's: evaluated, or, if it was counted, settled only."""
    put(*(made(number) for number in range(3)))
    with pytest.raises(Crash):
        worker(source=Killed(str(directory), moment)).run(until_empty=True)
    assert len(files(directory, "claimed")) == 3
    worker("second").run(until_empty=True)
    assert len(files(directory, "claimed")) == 3, "a lease that goes on is another's"
    for path in (directory / "claimed").iterdir():
        os.utime(path, (1, 1))
    worker("third").run(until_empty=True)
    assert [files(directory, folder) for folder in ("new", "claimed", "rejected")] == [[], [], []]
    assert outcomes(exported) == {"evaluated": 3}


def test_totals_go_on_in_the_next_life(made: Made, put: Put, worker: MakeWorker, exported: Exported) -> None:
    """A worker that is started again under its name reports what it had counted, exported or not, and no other's."""
    put(made(), noise=b"noise")
    worker("a").run(until_empty=True)
    put(made())
    worker("b").run(until_empty=True)
    later = Exported()
    try:
        from otel_quantmon.evaluator.reporting import Reporting

        first = worker("a")
        again = Reporting(first._reporting._settings, later.meter_provider)
        EvaluatorWorker(first._source, first._models, first._ledger, again)
        assert outcomes(later) == {"evaluated": 1, "rejected": 1}
    finally:
        later.shut_down()


def test_stopping_gives_back_what_is_not_evaluated(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path
) -> None:
    """A worker that is asked to end has others take the rest at once, without waiting for a lease."""

    class Stopping(DirectorySource):
        def renew(self) -> None:
            stopped.stop()

    put(*(made(number) for number in range(4)))
    stopped = worker(source=Stopping(str(directory), 100.0))
    stopped.run(until_empty=False)
    assert outcomes(exported) == {"evaluated": 1}
    assert files(directory, "claimed") == []
    assert len(files(directory, "new")) == 3
    assert suspects(directory) == {}, "nobody began with them"


@pytest.mark.slow
def test_workers_that_are_killed_at_any_moment_lose_and_double_nothing(
    made: Made, put: Put, directory: Path, models: Path
) -> None:
    """Real processes with SIGKILL, among others that go on: each sample is counted once, and the counts add up."""
    total = 120
    put(*(made(number) for number in range(total)), noise=b"noise")
    command = [sys.executable, "-m", "otel_quantmon.cli", "evaluate", "--models", str(models)]
    command += ["--source", f"dir:{directory}", "--json"]
    for _ in range(4):
        workers = [subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) for _ in range(2)]
        before = len(files(directory, "new"))
        deadline = time.monotonic() + 120
        while len(files(directory, "new")) == before and before and time.monotonic() < deadline:
            # Another program's folder has no event.
            time.sleep(0.01)
        for one in workers:
            one.send_signal(signal.SIGKILL)
            one.wait()
        for path in (directory / "claimed").iterdir():
            os.utime(path, (1, 1))
    done = subprocess.run([*command, "--until-empty"], env=environment(), capture_output=True, check=True)
    assert json.loads(done.stdout)
    database = sqlite3.connect(directory / "state.sqlite")
    counts = dict(database.execute("SELECT outcome, sum(count) FROM total GROUP BY outcome"))
    database.close()
    assert counts == {"evaluated": total, "rejected": 1}
    assert [files(directory, folder) for folder in ("new", "claimed")] == [[], []]
