"""What leaves the process when the reference is remote, and by which way."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import real_models
from exported import Exported
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NoOpTracerProvider

from fidelity.logs import Logs
from fidelity.waiting import outcomes, pipeline_of, settle, until, warnings
from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
from otel_quantmon.fidelity.baseline import record, write_baseline
from otel_quantmon.fidelity.remote import sending, spool
from otel_quantmon.fidelity.remote.record import LARGEST, decode
from otel_quantmon.fidelity.remote.store import Store

from .sent import NAME, events, samples, session

Instrument = Callable[..., None]


def test_a_sampled_call_is_written_to_a_directory(
    instrument: Instrument, exported: Exported, tmp_path: Path, features: np.ndarray
) -> None:
    """Inputs, outputs, who gave them and the trace of the call: all of it, readable by nobody but the owner."""
    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path / "samples"))
    model = session()
    with exported.tracer.start_as_current_span("request"):
        (scores,) = model.run(None, {"bytes": features})
    settle()
    (sample,) = samples(tmp_path / "samples")
    (span,) = exported.raw_spans()
    assert span.context is not None
    assert (sample.trace_id, sample.span_id) == (span.context.trace_id, span.context.span_id)
    assert (sample.model, sample.runtime, sample.scheme, sample.provider) == (
        NAME, "onnxruntime", "qdq", "CPUExecutionProvider",
    )  # fmt: skip
    assert sample.digest is not None
    assert sample.digest.startswith("sha256:")
    assert list(sample.inputs) == ["bytes"]
    assert np.array_equal(sample.inputs["bytes"], features)
    assert np.array_equal(sample.outputs["target_label"], scores)
    assert {facts.name for facts in sample.facts} == {"bytes", "target_label"}
    (file,) = (tmp_path / "samples" / "new").iterdir()
    assert file.name == f"{sample.id}.sample"
    assert file.stat().st_mode & 0o077 == 0
    assert not list((tmp_path / "samples" / "tmp").iterdir())
    (point,) = exported.points("quantmon.reference.evaluations")
    assert point.value == 1
    assert point.attributes["quantmon.reference.source"] == "remote"
    assert point.attributes["quantmon.reference.outcome"] == "sent"


def test_a_sample_says_which_host_and_service_it_is_of(
    instrument: Instrument, tmp_path: Path, features: np.ndarray
) -> None:
    """As the application's resource has it, a node before a pod; without a name, the system's, and no service."""
    node = {"k8s.node.name": "node-3", "host.name": "pod-77", "service.name": "mail"}
    for attributes, told in ((node, ("node-3", "mail")), ({}, (socket.gethostname(), ""))):
        provider = MeterProvider([InMemoryMetricReader()], Resource(attributes), shutdown_on_exit=False)
        folder = tmp_path / (told[1] or "unnamed")
        instrument(
            reference={"*": "remote"},
            remote_directory=str(folder),
            meter_provider=provider,
            tracer_provider=NoOpTracerProvider(),
        )
        session().run(None, {"bytes": features})
        settle()
        (sample,) = samples(folder)
        assert (sample.host, sample.service) == told
        provider.shutdown()
        for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
            instrumentor.uninstrument()


def test_cases_of_a_golden_baseline_leave_as_such(
    instrument: Instrument, exported: Exported, tmp_path: Path, features: np.ndarray
) -> None:
    """Each once in a replay, beside samples of calls: with the recorded inputs, and what they give here."""
    path = tmp_path / "baseline.safetensors"
    rows = [{"bytes": row[None]} for row in real_models.magika_inputs(3)]
    write_baseline(path, record(str(real_models.magika_qdq()), rows))
    folder = tmp_path / "samples"
    instrument(
        reference={"*": "remote"},
        remote_directory=str(folder),
        baseline=str(path),
        reference_budget=1.0,
    )
    model = session()
    until(
        lambda: folder.exists() and sum(one.golden for one in samples(folder)) >= len(rows),
        lambda: model.run(None, {"bytes": features}),
    )
    golden = [one for one in samples(folder) if one.golden]
    assert len(golden) == len(rows)
    for row in rows:
        (sample,) = (one for one in golden if np.array_equal(one.inputs["bytes"], row["bytes"]))
        assert np.array_equal(sample.outputs["target_label"], model.run(None, row)[0])
    assert any(not one.golden for one in samples(folder))


def test_a_sampled_call_is_an_event(
    instrument: Instrument, exported: Exported, logs: Logs, features: np.ndarray
) -> None:
    """Without a directory the sample is the body of a log record that a Collector can route by its name."""
    instrument(reference={"*": "remote"}, logger_provider=logs.provider)
    (scores,) = session().run(None, {"bytes": features})
    settle()
    (record,) = events(logs)
    sample = decode(record.body)
    told = {name: value for name, value in record.attributes.items() if name != "event.name"}
    assert told == {
        "quantmon.model.name": NAME,
        "quantmon.runtime.name": "onnxruntime",
        "quantmon.quantization.scheme": "qdq",
        "quantmon.execution_provider": "CPUExecutionProvider",
        "quantmon.model.digest": sample.digest,
        "quantmon.sample.id": sample.id,
        "quantmon.sample.format": 1,
    }
    assert np.array_equal(sample.outputs["target_label"], scores)
    assert outcomes(exported) == {"sent": 1}


def test_a_sample_too_large_for_an_event_is_dropped_without_a_store(
    instrument: Instrument,
    exported: Exported,
    logs: Logs,
    features: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is counted, and one warning says where it could go."""
    instrument(
        reference={"*": "remote"}, logger_provider=logs.provider, remote_size=100, remote_interval=0.001
    )
    model = session()
    until(
        lambda: outcomes(exported).get("dropped_size", 0) >= 2, lambda: model.run(None, {"bytes": features})
    )
    assert events(logs) == []
    (warning,) = warnings(caplog)
    assert "QUANTMON_REMOTE_STORE" in warning


def test_a_sample_too_large_for_an_event_goes_to_the_store(
    instrument: Instrument, exported: Exported, logs: Logs, features: np.ndarray, tmp_path: Path
) -> None:
    """The event says where it is and carries nothing of it; whoever has the store gets it, and removes it."""
    instrument(
        reference={"*": "remote"},
        logger_provider=logs.provider,
        remote_size=100,
        remote_store=str(tmp_path / "store"),
    )
    session().run(None, {"bytes": features})
    settle()
    (record,) = events(logs)
    assert record.body == b""
    location = record.attributes["quantmon.sample.location"]
    store = Store(str(tmp_path / "store"), LARGEST)
    assert decode(store.get(location)).id == record.attributes["quantmon.sample.id"]
    assert outcomes(exported) == {"sent": 1}
    store.remove(location)
    store.remove(location)
    assert not list((tmp_path / "store").iterdir())


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "{store}/../x.sample", "{store}/a/b.sample", "http://x/y"]
)
def test_a_record_cannot_have_another_file_read(tmp_path: Path, location: str) -> None:
    """Where a sample is comes from outside: nothing but the store itself is read, and no more than is allowed."""
    store = Store(str(tmp_path / "store"), 10)
    with pytest.raises(ValueError, match="is no sample in"):
        store.get(location.format(store=tmp_path / "store"))
    with pytest.raises(ValueError, match="are read at most"):
        store.get(store.put("ab", b"x" * 11))


def test_a_directory_that_cannot_be_written_costs_samples_only(
    instrument: Instrument,
    exported: Exported,
    tmp_path: Path,
    features: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning, one count, and the call has its result."""
    (tmp_path / "file").write_text("in the way")
    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path / "file"))
    (scores,) = session().run(None, {"bytes": features})
    settle()
    assert scores.shape == (2, 214)
    assert outcomes(exported) == {"failed": 1}
    (warning,) = warnings(caplog)
    assert "a sample cannot be sent, it is tried again every 30 s" in warning


def test_samples_that_nobody_takes_do_not_fill_the_disk(
    instrument: Instrument,
    exported: Exported,
    tmp_path: Path,
    features: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Past a limit they are dropped and counted, as past that of any other queue."""
    monkeypatch.setattr(spool, "_MOST_FILES", 2)
    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path), remote_interval=0.001)
    model = session()
    until(
        lambda: outcomes(exported).get("dropped_queue", 0) >= 1, lambda: model.run(None, {"bytes": features})
    )
    assert len(samples(tmp_path)) == 2
    assert outcomes(exported)["sent"] == 2


def test_without_the_package_that_compresses_nothing_is_copied(
    instrument: Instrument,
    exported: Exported,
    tmp_path: Path,
    features: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes with an extra: one warning names that."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path))
    session().run(None, {"bytes": features})
    settle()
    assert outcomes(exported) == {}
    (warning,) = warnings(caplog)
    assert "otel-quantmon[remote]" in warning


@pytest.mark.parametrize("provider", [None, LoggerProvider(shutdown_on_exit=False)], ids=["none", "deaf"])
def test_without_anybody_to_take_events_a_warning_says_so(
    provider: LoggerProvider | None,
    instrument: Instrument,
    exported: Exported,
    features: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Samples that have nowhere to go are not sent off into nothing unheard.

    Where no exporter of logs is named, `opentelemetry-instrument` makes a provider all the same, without a processor.
    """
    instrument(reference={"*": "remote"}, logger_provider=provider)
    session().run(None, {"bytes": features})
    settle()
    assert outcomes(exported) == {"failed": 1}
    (warning,) = warnings(caplog)
    assert "QUANTMON_REMOTE_DIRECTORY" in warning


def test_no_more_bytes_leave_than_one_export_can_hold(
    instrument: Instrument,
    exported: Exported,
    logs: Logs,
    features: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a sample the model is not asked for another before its bytes fit into what an exporter sends at once."""
    monkeypatch.setattr(sending, "_BYTES_PER_SECOND", 1.0)
    instrument(reference={"*": "remote"}, logger_provider=logs.provider, remote_interval=0.001)
    model = session()
    for _ in range(5):
        model.run(None, {"bytes": features})
        settle()
    (record,) = events(logs)
    assert 0 < pipeline_of(exported).remote.wait <= len(record.body)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_sends_samples_of_its_own(
    instrument: Instrument, exported: Exported, tmp_path: Path, features: np.ndarray
) -> None:
    """Each under an identity of its own; what the parent had waiting is the parent's to send."""
    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path), remote_interval=0.001)
    options = onnxruntime.SessionOptions()
    # The runtime's own threads are not in the child, and it would wait for them.
    options.intra_op_num_threads = 1
    model = onnxruntime.InferenceSession(
        str(real_models.magika_qdq()), options, providers=["CPUExecutionProvider"]
    )
    model.run(None, {"bytes": features})
    settle()

    def more() -> bool:
        return len(samples(tmp_path)) > before

    before = len(samples(tmp_path))
    child = os.fork()
    if child == 0:
        try:
            until(more, lambda: model.run(None, {"bytes": features}))
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = samples(tmp_path)
    assert len({sample.id for sample in found}) == len(found) > before
