"""What KServe's logger sends becomes samples: both protocols, both halves in any order; what is wrong is counted."""

from __future__ import annotations

import base64
import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models
from exported import Exported

from otel_quantmon.evaluator import kserve, receiving
from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.kserve import KServeSource
from otel_quantmon.evaluator.source import EvaluatorError
from otel_quantmon.evaluator.worker import EvaluatorWorker
from otel_quantmon.fidelity.remote.record import SampleRecord, decode

from .conftest import LEASE, errors, outcomes

Calls = list[tuple[dict[str, Any], dict[str, Any]]]
_RECORDED = Path(__file__).parent / "recorded"
DOCUMENTED = _RECORDED / "kserve-sklearn-iris.json"
RECORDED = _RECORDED / "kserve-agent-magika.json"


class Opened:
    """A source, and what it has counted."""

    def __init__(self, directory: Path) -> None:
        self.counted: Counter[str] = Counter()
        self.directory = directory
        self.source = KServeSource(
            "127.0.0.1", 0, str(directory), LEASE, lambda one: self.counted.update([one])
        )

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        """The status of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.source.port, timeout=30)
        connection.request("POST", "/", body, headers)
        status = connection.getresponse().status
        connection.close()
        return status

    def send(self, kind: str, body: bytes, identity: str = "1", **more: str) -> int:
        """One half, as KServe's logger sends it: in the binary mode of CloudEvents over HTTP."""
        attributes = {
            "specversion": "1.0",
            "type": f"org.kubeflow.serving.inference.{kind}",
            "source": "http://localhost:9081/",
            "id": identity,
            "time": "2026-04-10T00:23:26.0789529Z",
            "inferenceservicename": "magika_int8",
            "namespace": "shop",
            "component": "predictor",
            "endpoint": "default",
            "metadata": "{}",
        }
        headers = {f"Ce-{name.title()}": value for name, value in (attributes | more).items()}
        return self.post(body, headers | {"Content-Type": "application/json"})

    def samples(self) -> list[SampleRecord]:
        """What is in the directory."""
        return [decode(path.read_bytes()) for path in sorted((self.directory / "new").iterdir())]


@pytest.fixture
def opened(directory: Path) -> Iterator[Opened]:
    made = Opened(directory)
    yield made
    made.source.close()


def version_2(key: str, tensors: dict[str, Any], *, binary: bool = False, **more: Any) -> bytes:
    """A body of the V2 protocol; with the binary extension, the data behind the text."""
    kinds = {"int32": "INT32", "float32": "FP32", "int64": "INT64"}
    listed = [
        {"name": name, "shape": list(array.shape), "datatype": kinds[array.dtype.name]}
        | ({"parameters": {"binary_data_size": array.nbytes}} if binary else {"data": array.ravel().tolist()})
        for name, array in tensors.items()
    ]
    text = json.dumps({"id": "1", **more, key: listed}).encode()
    return text + b"".join(array.tobytes() for array in tensors.values()) if binary else text


def test_the_example_of_the_documentation_is_a_sample(opened: Opened) -> None:
    """Both events of the documentation's example, structured as Knative may pass them on: values, time and service."""
    for event in json.loads(DOCUMENTED.read_text())["events"]:
        body = json.dumps(event).encode()
        assert opened.post(body, {"Content-Type": "application/cloudevents+json; charset=utf-8"}) == 200
    (sample,) = opened.samples()
    assert (sample.model, sample.service, sample.host) == (
        "sklearn-iris",
        "default/sklearn-iris",
        "127.0.0.1",
    )
    assert sample.time == 1618014206_078952900
    assert sample.inputs["instances"].tolist() == [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
    assert sample.outputs["predictions"].tolist() == [1, 1]
    assert (sample.trace_id, sample.digest) == (0, None)
    assert opened.counted == {}


def test_what_the_agent_of_kserve_has_sent_is_evaluated(
    opened: Opened, worker: Callable[..., EvaluatorWorker], exported: Exported
) -> None:
    """Requests of KServe's own logger as they were recorded: a call with numbers in the text, one with bytes behind it,
    and one that the predictor refused, whose request waits for a response in vain. Both samples are as the calls were,
    and are compared with the float model.
    """
    for request in json.loads(RECORDED.read_text())["requests"]:
        assert opened.post(base64.b64decode(request["body"]), request["headers"]) == 200
    samples = opened.samples()
    tokens = {tuple(row) for row in real_models.magika_inputs(2).tolist()}
    assert {tuple(one.inputs["bytes"][0].tolist()) for one in samples} == tokens
    for one in samples:
        assert (one.model, one.version, one.service) == ("magika_int8", "3", "shop/magika")
        assert (one.inputs["bytes"].dtype, one.outputs["target_label"].dtype) == (np.int32, np.float32)
        assert one.outputs["target_label"].sum() == pytest.approx(1.0, abs=0.02)
    assert {(one.trace_id, one.span_id) for one in samples} == {(1, 1), (2, 2)}
    worker(source=DirectorySource(str(opened.directory), LEASE)).run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 2}
    assert opened.counted == {}


@pytest.mark.parametrize("binary", [False, True])
def test_calls_of_the_second_protocol_are_evaluated(
    binary: bool,
    opened: Opened,
    calls: Calls,
    worker: Callable[..., EvaluatorWorker],
    exported: Exported,
    made: Callable[..., SampleRecord],
    put: Callable[..., None],
) -> None:
    """As numbers in the text and as bytes behind it, either half first: the error of the same call by the SDK."""
    for number, (inputs, outputs) in enumerate(calls):
        halves = [
            ("request", version_2("inputs", inputs, binary=binary)),
            (
                "response",
                version_2("outputs", outputs, binary=binary, model_name="magika_int8", model_version="3"),
            ),
        ]
        for kind, body in halves[:: 1 if number % 2 else -1]:
            assert opened.send(kind, body, str(number)) == 200
    assert {(one.model, one.version) for one in opened.samples()} == {("magika_int8", "3")}
    worker(source=DirectorySource(str(opened.directory), LEASE)).run(until_empty=True)
    assert outcomes(exported) == {"evaluated": len(calls)}
    by_kserve = errors(exported).sum
    put(*(made(number) for number in range(len(calls))))
    worker("sdk").run(until_empty=True)
    total = sum(point.sum for point in exported.points("quantmon.output.error"))
    assert total == pytest.approx(2 * by_kserve, rel=1e-5)


def test_the_trace_is_that_of_the_call(opened: Opened, calls: Calls) -> None:
    """Where the logger adds the header of the call; that of the event itself is of its way here."""
    inputs, outputs = calls[0]
    header = {"Traceparent": ["00-000000000000000000000000000000ab-00000000000000cd-01"]}
    opened.send("request", version_2("inputs", inputs), metadata=json.dumps(header))
    opened.send("response", version_2("outputs", outputs))
    (sample,) = opened.samples()
    assert (sample.trace_id, sample.span_id) == (0xAB, 0xCD)


def test_a_pair_that_is_sent_twice_is_one_sample(opened: Opened, calls: Calls) -> None:
    """It has the same identity, by which it is counted once; a half that comes twice is one half."""
    inputs, outputs = calls[0]
    for _ in range(2):
        opened.send("request", version_2("inputs", inputs))
        opened.send("request", version_2("inputs", inputs))
        opened.send("response", version_2("outputs", outputs))
    (sample,) = opened.samples()
    assert len(sample.id) == 32
    opened.send("request", version_2("inputs", inputs), namespace="other")
    opened.send("response", version_2("outputs", outputs), namespace="other")
    assert len({one.id for one in opened.samples()}) == 2


def test_a_half_that_could_not_be_kept_can_be_sent_again(
    opened: Opened, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is answered with 503, and the other half waits: once there is room, the pair is a sample."""
    inputs, outputs = calls[0]
    assert opened.send("request", version_2("inputs", inputs)) == 200
    with monkeypatch.context() as full:
        full.setattr(opened.source._pairs, "_keep", lambda *_: Path("/dev/full").write_bytes(b"x"))
        assert opened.send("response", version_2("outputs", outputs)) == 503
    assert opened.send("response", version_2("outputs", outputs)) == 200
    assert len(opened.samples()) == 1
    monkeypatch.setattr(kserve, "_WAIT", 0.0)
    opened.source.claim(1, 0.0)
    assert opened.counted == {}


def test_a_slow_disk_holds_up_no_half(opened: Opened, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pair is written, halves of others are taken."""
    inputs, outputs = calls[0]

    def keep(*_: object) -> bool:
        return opened.send("request", version_2("inputs", inputs), "another") == 200

    monkeypatch.setattr(opened.source._pairs, "_keep", keep)
    assert opened.send("request", version_2("inputs", inputs)) == 200
    assert opened.send("response", version_2("outputs", outputs)) == 200
    assert opened.counted == {}


def test_halves_that_stay_alone_are_counted(
    opened: Opened, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute one is let go of; its other half, if it is late, stays alone as well."""
    inputs, outputs = calls[0]
    opened.send("request", version_2("inputs", inputs))
    opened.source.claim(1, 0.0)
    assert opened.counted == {}
    monkeypatch.setattr(kserve, "_WAIT", 0.0)
    opened.source.claim(1, 0.0)
    assert opened.counted == {"unpaired": 1}
    opened.send("response", version_2("outputs", outputs))
    opened.source.claim(1, 0.0)
    assert opened.counted == {"unpaired": 2}
    assert opened.samples() == []


def test_what_is_wrong_is_counted_and_others_go_on(
    opened: Opened, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another event, damaged bodies, a failed call, too much: each by what it is, and none ends the source."""
    inputs, outputs = calls[0]
    whole = version_2("inputs", inputs)
    assert opened.post(b"{}", {"Content-Type": "application/json"}) == 400
    assert opened.send("outlier", whole) == 400
    assert opened.send("request", whole[:-9]) == 400
    assert opened.send("request", b'{"instances": [[1, 2], [3]]}') == 400
    assert opened.post(b"[", {"Content-Type": "application/cloudevents+json"}) == 400
    assert opened.counted == {"rejected": 5}
    opened.send("request", whole, "failed")
    assert opened.send("response", b'{"error": "no"}', "failed", statuscode="422") == 200
    assert opened.counted["failed"] == 1
    monkeypatch.setattr(receiving, "_LARGEST", len(whole) - 1)
    assert opened.send("request", whole) == 413
    assert opened.counted["dropped_size"] == 1
    monkeypatch.undo()
    monkeypatch.setattr(kserve, "_MOST_BYTES", len(whole) - 1)
    opened.send("request", whole)
    assert opened.counted["dropped_bytes"] == 1
    monkeypatch.undo()
    monkeypatch.setattr(kserve, "_MOST_WAITING", 1)
    opened.send("request", whole, "a")
    opened.send("request", whole, "b")
    assert opened.counted["dropped_queue"] == 1
    opened.send("response", version_2("outputs", outputs), "b")
    assert len(opened.samples()) == 1


def test_texts_that_are_none_are_refused_or_replaced(opened: Opened, calls: Calls) -> None:
    """JSON may spell lone surrogates: an error in the event's own names, and replaced in a model's."""
    inputs, outputs = calls[0]

    def post(kind: str, body: bytes, service: str) -> int:
        event = {
            "type": f"org.kubeflow.serving.inference.{kind}",
            "id": "1",
            "inferenceservicename": service,
            "data": json.loads(body),
        }
        return opened.post(json.dumps(event).encode(), {"Content-Type": "application/cloudevents+json"})

    assert post("request", version_2("inputs", inputs), "\ud800") == 400
    assert opened.counted == {"rejected": 1}
    assert post("request", version_2("inputs", inputs), "shop") == 200
    assert post("response", version_2("outputs", outputs, model_name="a\ud800"), "shop") == 200
    (sample,) = opened.samples()
    assert sample.model == "a?"


def test_what_waits_is_counted_by_what_it_takes(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of one digit are two bytes in the text and eight in memory, short texts five and some sixty."""
    numbers, texts = ({"instances": [value] * 1000} for value in (0, "ab"))
    monkeypatch.setattr(kserve, "_MOST_BYTES", 7_900)
    assert opened.send("request", json.dumps(numbers).encode(), "a") == 200
    assert opened.counted == {"dropped_bytes": 1}
    monkeypatch.setattr(kserve, "_MOST_BYTES", 50_000)
    assert opened.send("request", json.dumps(texts).encode(), "b") == 200
    assert opened.counted == {"dropped_bytes": 2}
    assert opened.send("request", json.dumps(numbers).encode(), "a") == 200
    assert opened.counted == {"dropped_bytes": 2}


def test_an_address_that_is_taken_is_told(opened: Opened) -> None:
    """With the address."""
    with pytest.raises(EvaluatorError, match="cannot be listened on"):
        KServeSource("127.0.0.1", opened.source.port, str(opened.directory), LEASE, lambda _: None)
