"""What a worker makes of samples: values, counts, dead letters, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models
from exported import Exported
from lifecycle.programs import environment

from otel_quantmon.cli import evaluate, main
from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.references import FloatModels, read_models
from otel_quantmon.evaluator.source import Claimed, EvaluatorError
from otel_quantmon.evaluator.worker import AT_ONCE, EvaluatorWorker
from otel_quantmon.fidelity.remote.record import SampleRecord, encode
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts

from .conftest import errors, files, outcomes

Made = Callable[..., SampleRecord]
Put = Callable[..., None]
MakeWorker = Callable[..., EvaluatorWorker]


def test_values_are_those_of_compare(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, tmp_path: Path, capsys: Any
) -> None:
    """The same calls through ``quantmon compare`` give the same mean, largest error and cosine, to 1e-6."""
    records = [made(number) for number in range(6)]
    put(*records)
    worker().run(until_empty=True)
    np.save(tmp_path / "inputs.npy", np.concatenate([record.inputs["bytes"] for record in records]))
    command = ["compare", str(real_models.magika_float()), str(real_models.magika_qdq()), "--json"]
    assert main([*command, "--inputs", str(tmp_path / "inputs.npy"), "--cases", "6"]) == 0
    compared = json.loads(capsys.readouterr().out)["outputs"]["target_label"]
    error = {p.attributes["quantmon.statistic"]: p for p in exported.points("quantmon.output.relative_error")}
    assert error["mean"].value == pytest.approx(compared["relative_error"]["mean"], abs=1e-6)
    assert error["max"].value == pytest.approx(compared["relative_error"]["max"], abs=1e-6)
    cosine = exported.point("quantmon.output.cosine_similarity")
    assert cosine.value == pytest.approx(compared["cosine_similarity"], abs=1e-6)
    assert dict(cosine.attributes) == {
        "quantmon.model.name": "magika_int8",
        "quantmon.runtime.name": "onnxruntime",
        "quantmon.quantization.scheme": "qdq",
        "quantmon.execution_provider": "CPUExecutionProvider",
        "quantmon.output.name": "target_label",
        "quantmon.reference.source": "remote",
    }
    assert outcomes(exported) == {"evaluated": 6}


def test_an_error_leads_to_the_trace_of_the_service(
    made: Made, put: Put, worker: MakeWorker, exported: Exported
) -> None:
    """The exemplar has the identities that the sample brought from another process."""
    put(made(trace_id=0x1234, span_id=0x56))
    worker().run(until_empty=True)
    (exemplar,) = errors(exported).exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (0x1234, 0x56)


def test_a_case_of_a_golden_baseline_is_no_traffic(
    made: Made, put: Put, worker: MakeWorker, exported: Exported
) -> None:
    """It is evaluated and counted, and its error is in no window."""
    put(made(golden=True))
    worker().run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 1}
    assert exported.points("quantmon.output.relative_error") == []


def test_a_sample_that_arrives_twice_counts_once(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path
) -> None:
    """In one batch, and again later under whatever name, also for another worker: it is settled and not evaluated."""
    record = made()
    put(record, again=encode(record), other=encode(made(1)))
    worker().run(until_empty=True)
    put(record)
    worker("another").run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 2}
    assert errors(exported).count == 2
    assert [files(directory, folder) for folder in ("new", "claimed", "rejected")] == [[], [], []]


def test_what_cannot_be_evaluated_is_kept_with_its_reason(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path
) -> None:
    """Damage, another version, a model without a float one and inputs that do not fit: others go on beside them."""
    old = bytearray(encode(made()))
    old[8:10] = (9).to_bytes(2, "little")
    unknown, unfit = made(model="face"), made(inputs={"bytes": np.zeros((1, 5, 5), np.int32)})
    put(made(), unknown, unfit, noise=b"noise", old=bytes(old))
    worker().run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 1, "rejected": 4}
    rejected = directory / "rejected"
    reasons = {path.stem: path.read_text().strip() for path in rejected.glob("*.txt")}
    assert sorted(path.stem for path in rejected.glob("*.sample")) == sorted(reasons)
    assert "is no sample" in reasons["noise"]
    assert "of version 9" in reasons["old"]
    assert "no float model is named for 'face'" in reasons[unknown.id]
    assert reasons[unfit.id].startswith("the reference wants 'bytes'")
    by_model = {
        (
            point.attributes.get("quantmon.model.name"),
            point.attributes["quantmon.reference.outcome"],
        ): point.value
        for point in exported.points("quantmon.reference.evaluations")
    }
    assert by_model == {
        ("magika_int8", "evaluated"): 1,
        ("magika_int8", "rejected"): 1,
        ("face", "rejected"): 1,
        (None, "rejected"): 2,
    }


def test_dead_letters_can_be_put_back(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path, models: Path
) -> None:
    """A sample is counted once, as rejected: put back it is passed over, and rejected again."""
    record = made(model="face")
    put(record)
    worker().run(until_empty=True)
    (directory / "rejected" / f"{record.id}.sample").rename(directory / "new" / f"{record.id}.sample")
    worker().run(until_empty=True)
    assert files(directory, "rejected") == [f"{record.id}.sample", f"{record.id}.txt"]


def test_a_float_model_that_cannot_be_loaded_costs_no_sample(
    made: Made, put: Put, worker: MakeWorker, directory: Path, models: Path, tmp_path: Path
) -> None:
    """That is no fault of theirs: the worker says so and ends, and they wait for one that can."""
    record = made()
    put(record)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    models.write_text('[models."*"]\nreference = "broken.onnx"\n')
    with pytest.raises(EvaluatorError, match=r"the float model .*broken\.onnx cannot be loaded"):
        worker().run(until_empty=True)
    assert files(directory, "new") == [f"{record.id}.sample"]
    assert suspects(directory) == {}


def test_batches_give_what_single_runs_give(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, models: Path
) -> None:
    """Where the float model takes batches and is allowed to, the errors are the same but for rounding."""
    put(*(made(number) for number in range(6)))
    worker("alone").run(until_empty=True)
    alone = errors(exported)
    text = models.read_text()
    models.write_text(text + "reference_batch = 4\n")
    put(*(made(number) for number in range(6)))
    worker("together").run(until_empty=True)
    both = errors(exported)
    assert both.count == 12
    # Float32 sums in another order: `engines.batching` allows for 1e-4 of an output.
    assert both.sum / 12 == pytest.approx(alone.sum / 6, abs=1e-4)


def test_a_float_model_is_loaded_before_a_sample_is_at_hand(
    made: Made, put: Put, worker: MakeWorker, exported: Exported, directory: Path, models: Path
) -> None:
    """Where loading ends the worker no sample is a suspect, and the claim begins anew when it is loaded."""
    seen: list[str] = []

    class Loading(FloatModels):
        def load(self, settings: Any) -> None:
            seen.append("load")
            assert suspects(directory) == {}
            super().load(settings)

        def run(self, settings: Any, records: Any) -> Any:
            seen.append("run")
            assert suspects(directory) == {records[0].id: 1}
            return super().run(settings, records)

    class Renewed(DirectorySource):
        def renew(self) -> None:
            seen.append("renew")

    put(made())
    loading = Loading(read_models(str(models)), 1)
    worker(models=loading, source=Renewed(str(directory), 100.0)).run(until_empty=True)
    assert seen == ["load", "renew", "run", "renew"]
    assert outcomes(exported) == {"evaluated": 1}


@pytest.mark.parametrize(
    ("text", "runs"),
    [("", 1), ("reference_batch = 4\n", 4), ("reference_batch = 1024\n", AT_ONCE)],
)
def test_a_lease_is_as_long_as_four_of_the_longest_batches(text: str, runs: int, models: Path) -> None:
    """Nothing is renewed while one runs, which has the time of all its samples; no more are claimed at once."""
    models.write_text(models.read_text() + text)
    assert evaluate._lease(read_models(str(models))) == 4 * 30.0 * runs


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


def suspects(directory: Path) -> dict[str, int]:
    """How many workers have ended over a sample, by its identity."""
    database = sqlite3.connect(directory / "state.sqlite")
    try:
        return dict(
            Counter(one for (ids,) in database.execute("SELECT ids FROM at_hand") for one in ids.split())
        )
    finally:
        database.close()


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


@pytest.mark.parametrize(
    ("attributes", "instance"), [("", "a b"), ("service.instance.id=own", "own"), ("host.name=h", "a b")]
)
def test_a_worker_exports_under_its_name(
    attributes: str, instance: str, made: Made, put: Put, directory: Path, models: Path
) -> None:
    """Started again it goes on with the series that it had; what the environment says of the instance comes first."""
    put(made())
    command = [
        sys.executable,
        "-m",
        "otel_quantmon.cli",
        "evaluate",
        "--models",
        str(models),
        "--until-empty",
    ]
    variables = {"OTEL_METRICS_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "none"}
    variables |= {"OTEL_RESOURCE_ATTRIBUTES": attributes} if attributes else {}
    done = subprocess.run(
        [*command, "--source", f"dir:{directory}", "--name", "a b"],
        env=environment(variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'"service.instance.id": "{instance}"' in done.stdout
    assert '"service.name": "quantmon-evaluate"' in done.stdout
    assert ('"host.name": "h"' in done.stdout) == ("host.name" in attributes)


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models = ", "is not valid TOML"),
        ("", "names no float model: write sections"),
        ('[models."a"]\nreference = "missing.onnx"\n', "no files: 'a': "),
        ('[models."a"]\nreference = "remote"\n', "names no float model"),
        ('[models."a"]\nreferense = "a.onnx"\n', "did you mean reference?"),
        ('[models."a"]\nreference_batch = 0\n', "give a whole number from 1 to 1024"),
    ],
)
def test_mistakes_in_the_file_of_models_are_told(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and one message that says where and what; no sample is touched."""
    path = tmp_path / "models.toml"
    path.write_text(text)
    assert main(["evaluate", "--models", str(path), "--source", f"dir:{tmp_path / 'samples'}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize(
    "source",
    [
        "samples",
        "dir:",
        "ftp://x/y",
        "kafka://broker:9092",
        "kafka:///topic",
        "otlp:x/y",
        "otlp://127.0.0.1:4318",
    ],
)
def test_an_unknown_source_is_told(source: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names what can be given."""
    assert main(["evaluate", "--models", str(models), "--source", source]) == 2
    assert "give dir:PATH, otlp://HOST:PORT/PATH, kserve://HOST:PORT/PATH or kafka" in capsys.readouterr().err
