"""The outputs of one quantized inference against those of its float reference.

What each kind of output is treated as:

- float16, float32, float64, bfloat16: numbers; narrower ones are widened, never the reverse.
- integers and 4-bit integers with quantization parameters: dequantized by their own.
- integers without parameters, booleans, strings: labels. If the reference's are labels too, the share of
  equal ones is given, since no distance between labels means anything.
- recurrent state, see `fed_back`: numbers, but no scores, so it has no top-1.
- scalars and 0-d tensors: one number, without rows for a top-1. Dimensions of 1 do not make two shapes
  differ.
- a sequence of tensors: measured as one tensor, if both have the same length and shapes.
- a map (ONNX ZipMap): its scalar values in the reference's order of keys are one row; else as a sequence.

And what gives no sample, with the `Reason` it is counted under:

- ``empty``: no element at all, or an optional output that both leave out.
- ``unmatched``: no output of the reference corresponds.
- ``kind``: a tensor against a sequence, numbers against labels or both in one output, or an optional output
  that one leaves out.
- ``shape``: shapes, lengths or keys differ: a ragged batch, another layout.
- ``dtype``: complex numbers, objects.
- ``quantization``: integer codes whose parameters are missing or do not fit, against floats.
- ``sparse``: sparse tensors.
- ``non_finite``: no element is finite in both; mismatches are counted all the same.
- ``degenerate``: a reference of nearly no magnitude, against which any error is large.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.fidelity.numerics.dequantization import NotComparableError, Reason, as_real, is_label
from otel_quantmon.fidelity.numerics.measures import Measures, measure, top1_noise
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["DEGENERATE_SHARE", "Comparison", "Match", "compare", "fed_back", "match_outputs"]

DEGENERATE_SHARE = 1e-6
"""Of the baseline's median ‖f‖: a reference output smaller than this gives no sample."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})

# A model with recurrent state takes data beside it, and gives a result.
_STATE_AND_MORE = 2
# Caches of attention are batch, heads, positions and width, or heads and width in one.
_CACHE_RANK = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one output gave.

    Attributes:
        output: Name of the output in the quantized model.
        reference: Name of the output in the reference, None if unmatched.
        reason: None if there is a sample, else why not.
        detail: Text for people that says what exactly stood in the way, ``""`` if nothing did.
        measures: Measures of numbers; also where ``reason`` is ``degenerate`` or ``non_finite``, for what they
            count, though their errors are then no sample.
        equal_share: Share of equal elements, of labels.
        state: True for recurrent state beside results.
    """

    output: str
    reference: str | None
    reason: Reason | None = None
    detail: str = ""
    measures: Measures | None = None
    equal_share: float | None = None
    state: bool = False

    @property
    def disagreement(self) -> float | None:
        """Share of decisions that differ: of rows by their top-1, of labels; None for what decides nothing."""
        if self.equal_share is not None:
            return 1.0 - self.equal_share
        return None if self.reason is not None or self.measures is None else self.measures.disagreement


@dataclass(frozen=True, slots=True)
class Match:
    """One output and that of the reference it belongs to; None, and the detail why, if there is none."""

    output: str
    reference: str | None
    detail: str = ""


def match_outputs(
    outputs: Mapping[str, object], references: Mapping[str, object], mapping: Mapping[str, str] = _NOTHING
) -> list[Match]:
    """Find for each output its reference: by `mapping`, by name, else by position.

    By position means: as many are left over on both sides, and the shapes of the two agree. Where several
    outputs of one shape could have changed places, give a mapping.

    Args:
        outputs, references: Values by name, in each model's own order.
        mapping: Names in the quantized model to names in the reference.
    """
    by_name = {name: mapping.get(name, name) for name in outputs}
    taken = {reference for reference in by_name.values() if reference in references}
    free = [name for name in references if name not in taken]
    left = [name for name, reference in by_name.items() if reference not in references]
    by_position = dict(zip(left, free, strict=True)) if len(left) == len(free) else {}
    matches: list[Match] = []
    for name, reference in by_name.items():
        if reference in references:
            matches.append(Match(name, reference))
        elif name in mapping:
            matches.append(
                Match(name, None, f"the mapping names {reference!r}, which the reference does not have")
            )
        elif name not in by_position:
            matches.append(Match(name, None, f"the reference's outputs left over are {free}; give a mapping"))
        elif not _shapes_agree(outputs[name], references[by_position[name]]):
            detail = f"{by_position[name]!r} is at its position, of another shape; give a mapping"
            matches.append(Match(name, None, detail))
        else:
            matches.append(Match(name, by_position[name]))
    return matches


def fed_back(inputs: Mapping[str, object], outputs: Mapping[str, object]) -> frozenset[str]:
    """Names of the outputs that hold recurrent state: the next call takes them as inputs.

    In a model with several inputs and several outputs, that is an output with the type and shape of an input in the
    same call. One dimension of at least three, not the last, may be longer: a cache grows there. The result of a
    recurrent layer may have the shape of its state, and is no row of scores either.
    """
    if len(inputs) < _STATE_AND_MORE or len(outputs) < _STATE_AND_MORE:
        return frozenset()
    taken = [_form(x) for x in inputs.values() if _is_array(x)]
    found = {name: _form(y) for name, y in outputs.items() if _is_array(y)}
    return frozenset(
        name
        for name, (dtype, shape) in found.items()
        if any(dtype == before and _is_next(was, shape) for before, was in taken)
    )


def _is_array(value: object) -> TypeGuard[NDArray[Any]]:
    return isinstance(value, np.ndarray)


def _form(array: NDArray[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    return array.dtype, array.shape


def _is_next(shape: tuple[int, ...], then: tuple[int, ...]) -> bool:
    """Return True if ``then`` is ``shape``, or that of a cache that has grown."""
    if len(shape) != len(then) or not shape:
        return False
    changed = [(n, m) for n, m in zip(shape, then, strict=True) if n != m]
    grown = len(changed) == 1 and changed[0][0] < changed[0][1] and shape[-1] == then[-1]
    return not changed or (grown and len(shape) >= _CACHE_RANK)


def compare(
    outputs: Mapping[str, object],
    references: Mapping[str, object],
    *,
    inputs: Mapping[str, object] = _NOTHING,
    facts: Mapping[str, TensorFacts] = _NOTHING,
    reference_facts: Mapping[str, TensorFacts] = _NOTHING,
    mapping: Mapping[str, str] = _NOTHING,
    median_norms: Mapping[str, float] = _NOTHING,
) -> list[Comparison]:
    """Compare every output of a quantized model with its reference; never raises for what the values are.

    Args:
        outputs, references: Outputs by name, in each model's own order: arrays, numbers, strings, sequences and maps
            of these, or None.
        inputs: Inputs of the quantized model in the same call, to know its recurrent state by.
        facts, reference_facts: Facts of the outputs, by name, for quantization parameters and bfloat16 given as
        uint16.
        mapping: Names in the quantized model to names in the reference, where they differ.
        median_norms: Median ‖f‖₂ in the baseline by output; without one only a zero reference is degenerate.

    Returns:
        One `Comparison` per output, in order.
    """
    results: list[Comparison] = []
    states = fed_back(inputs, outputs)
    for match in match_outputs(outputs, references, mapping):
        if match.reference is None:
            results.append(Comparison(match.output, None, "unmatched", match.detail))
            continue
        try:
            result = _compare_one(
                match.output,
                match.reference,
                list(_leaves(outputs[match.output], references[match.reference])),
                (facts.get(match.output), reference_facts.get(match.reference)),
                median_norms.get(match.output, 0.0),
            )
        except NotComparableError as error:
            result = Comparison(match.output, match.reference, error.reason, str(error))
        if match.output in states and result.measures is not None:
            measures = replace(result.measures, rows=0, flips=0)
            # Where all outputs have the form of an input, as of an image, they may be results.
            result = replace(result, measures=measures, state=len(states) < len(outputs))
        results.append(result)
    return results


def _compare_one(
    output: str,
    reference: str,
    leaves: list[tuple[NDArray[Any], NDArray[Any]]],
    facts: tuple[TensorFacts | None, TensorFacts | None],
    median_norm: float,
) -> Comparison:
    if not any(f.size for _, f in leaves):
        raise NotComparableError("empty", "there is no element to compare")
    labels = {(is_label(q, facts[0]), is_label(f, facts[1])) for q, f in leaves}
    if labels == {(True, True)}:
        try:
            equal = sum(int(np.count_nonzero(q == f)) for q, f in leaves)
        except TypeError as error:
            # As texts and the types of ml_dtypes, which know nothing of each other.
            raise NotComparableError("kind", f"labels of two kinds: {error}") from error
        return Comparison(output, reference, equal_share=equal / sum(f.size for _, f in leaves))
    if labels != {(False, False)} and not all(_convertible(q) and _convertible(f) for q, f in leaves):
        raise NotComparableError("kind", "labels and numbers do not mix, between two outputs or in one")
    noise = max(top1_noise(f.dtype) for _, f in leaves)
    measures = measure([(as_real(q, facts[0]), as_real(f, facts[1])) for q, f in leaves], noise)
    if not measures.elements:
        return Comparison(output, reference, "non_finite", "no element is finite in both", measures)
    if not measures.reference_norm or measures.reference_norm < DEGENERATE_SHARE * median_norm:
        detail = f"the reference's norm is {measures.reference_norm:.3g}, in the baseline {median_norm:.3g}"
        return Comparison(output, reference, "degenerate", detail, measures)
    return Comparison(output, reference, measures=measures)


def _convertible(array: NDArray[Any]) -> bool:
    """Return False for labels that quantization parameters would not make numbers of."""
    return array.dtype.kind not in "bSUTO"


def _leaves(q: object, f: object) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the tensors of two values in the same order, equal in shape.

    Raises:
        NotComparableError: The two outputs cannot be compared; the message says why.
    """
    if _is_sparse(q) or _is_sparse(f):
        raise NotComparableError("sparse", "sparse tensors are not measured; give dense ones")
    if q is None and f is None:
        return
    if _is_map(q) and _is_map(f):
        yield from _map_leaves(q, f)
    elif _is_sequence(q) and _is_sequence(f):
        if len(q) != len(f):
            raise NotComparableError("shape", f"a sequence of {len(q)} against one of {len(f)}")
        for one_q, one_f in zip(q, f, strict=True):
            yield from _leaves(one_q, one_f)
    elif _is_tensor(q) and _is_tensor(f):
        array_q, array_f = np.asarray(q), np.asarray(f)
        if array_q.shape != array_f.shape:
            if not _shapes_agree(array_q, array_f):
                raise NotComparableError("shape", f"{array_q.shape} against {array_f.shape}")
            array_q, array_f = array_q.squeeze(), array_f.squeeze()
        yield array_q, array_f
    else:
        raise NotComparableError("kind", f"{type(q).__name__} against {type(f).__name__}")


def _map_leaves(
    q: Mapping[object, object], f: Mapping[object, object]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    if q.keys() != f.keys():
        raise NotComparableError("shape", "the maps' keys differ")
    if all(isinstance(value, numbers.Real) for side in (q, f) for value in side.values()):
        yield np.asarray([q[key] for key in f]), np.asarray([f[key] for key in f])
    else:
        for key in f:
            yield from _leaves(q[key], f[key])


def _is_sparse(value: object) -> bool:
    # SparseTensor of ONNX Runtime and of TensorFlow; the matrices and arrays of scipy.
    return hasattr(value, "dense_shape") or (hasattr(value, "toarray") and hasattr(value, "nnz"))


def _is_map(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (list, tuple))


def _is_tensor(value: object) -> bool:
    return isinstance(value, (np.ndarray, np.generic, bool, int, float, complex, str, bytes))


def _shapes_agree(q: object, f: object) -> bool:
    """Return True if shapes are equal but for dimensions of 1; for values that are no tensors, if neither is one."""
    if not (_is_tensor(q) and _is_tensor(f)):
        return _is_tensor(q) == _is_tensor(f)
    return [n for n in np.asarray(q).shape if n != 1] == [n for n in np.asarray(f).shape if n != 1]
