"""What one evaluated sample says of its model, in numbers that can be pooled with those of other hosts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from otel_quantmon.detection.placement import Subject
from otel_quantmon.fidelity.numerics.comparison import Comparison, fed_back
from otel_quantmon.fidelity.numerics.sketches import first_items, input_sketch, output_sketch
from otel_quantmon.fidelity.numerics.tensor_checks import check_tensor
from otel_quantmon.fidelity.remote.record import SampleRecord

__all__ = ["Finding", "StreamName", "findings_of", "golden_of", "subject_of"]


class StreamName(NamedTuple):
    """Attributes: ``kind``: type of anomaly, ``of``: output or input, ``number``: which of several; may be empty."""

    kind: str
    of: str
    number: str


class Finding(NamedTuple):
    """Attributes: ``stream``: name of the stream that it is one of, ``value``: a finite number."""

    stream: StreamName
    value: float


def subject_of(record: SampleRecord) -> Subject:
    """Return who has sent a sample."""
    return Subject(record.host, record.service, record.digest or "", record.instructions)


def findings_of(record: SampleRecord, comparisons: Sequence[Comparison]) -> list[Finding]:
    """Return what a sample of traffic says.

    Args:
        record: The sample.
        comparisons: Its comparisons with the float model.
    """
    return [one for one in _found(record, comparisons) if math.isfinite(one.value)]


def _found(record: SampleRecord, comparisons: Sequence[Comparison]) -> Iterator[Finding]:
    for one in comparisons:
        if one.reason is None and one.measures is not None:
            yield Finding(StreamName("relative_error", one.output, ""), one.measures.relative_error)
        if one.disagreement is not None:
            yield Finding(StreamName("disagreement", one.output, ""), one.disagreement)
    facts = {tensor.name: tensor for tensor in record.facts}
    inputs, outputs = _arrays(record.inputs), _arrays(record.outputs)
    state = fed_back(inputs, outputs)
    forms = {(outputs[name].dtype, outputs[name].shape) for name in state}
    items, results = first_items(inputs, outputs, facts)
    bad = False
    for name, array in inputs.items():
        check = check_tensor(array, facts.get(name))
        bad |= check is not None and bool(check.nonfinite)
        if check is not None and check.clip_ratio is not None and array.dtype.kind not in "iu":
            yield Finding(StreamName("clipping", name, ""), check.clip_ratio)
        is_data = (array.dtype, array.shape) not in forms
        sketch = input_sketch(items[name], facts.get(name)) if is_data else None
        for number, value in (sketch or {}).items():
            yield Finding(StreamName("input_distribution", name, number), value)
    for name, array in outputs.items():
        check = check_tensor(array, facts.get(name))
        bad |= check is not None and bool(check.nonfinite)
        sketch = output_sketch(results[name], facts.get(name), decides=name not in state)
        for number, value in (sketch or {}).items():
            yield Finding(StreamName("output_distribution", name, number), value)
    yield Finding(StreamName("nonfinite", "", ""), float(bad))


def golden_of(record: SampleRecord, comparisons: Sequence[Comparison]) -> tuple[str, str, float] | None:
    """Return what a case of a golden baseline says: which case it is, what came out, and the largest relative error.

    The first two are digests: of the inputs, and of the outputs bit for bit. None if nothing could be compared.
    """
    errors = [
        one.measures.relative_error for one in comparisons if one.reason is None and one.measures is not None
    ]
    if not errors:
        return None
    return _digest(_arrays(record.inputs)), _digest(_arrays(record.outputs)), max(errors)


def _digest(arrays: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode("utf-8", "surrogatepass"))
        found.update(array.tobytes())
    return found.hexdigest()[:32]


def _arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if hasattr(value, "dtype")}
