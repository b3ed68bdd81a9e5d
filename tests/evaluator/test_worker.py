"""What a worker makes of samples: values, counts, dead letters, and what is left when it is killed."""

from __future__ import annotations

import json
import subprocess
import sys
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
from otel_quantmon.evaluator.source import EvaluatorError
from otel_quantmon.evaluator.worker import AT_ONCE, EvaluatorWorker
from otel_quantmon.fidelity.remote.record import SampleRecord, encode

from .conftest import errors, files, outcomes, suspects

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
