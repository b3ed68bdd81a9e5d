"""Where the error of one sampled call enters: the offline breakdown, in a process of its own while an anomaly is on.

It reads the intermediate tensors of both models, so it takes many times what a comparison takes. So the process is
started for it, has a limit of memory and of time, and ends with it; what it cannot tell is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from otel_quantmon.fidelity.engines import EngineError, open_engine
from otel_quantmon.fidelity.layers.breakdown import break_down
from otel_quantmon.fidelity.layers.layer import LayersError
from otel_quantmon.fidelity.numerics.comparison import compare
from otel_quantmon.fidelity.reference.evaluation import unpacked_facts
from otel_quantmon.fidelity.windows import SAME_RELATIVE_ERROR
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["Entry", "EntryTask", "find_entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryTask:
    """A sampled call whose error is to be located.

    Attributes:
        reference, quantized: Paths of the float model and of the other.
        mapping: Names in the quantized model to names in the reference.
        inputs, outputs: Tensors of the sampled call, by name.
        facts: Facts of these tensors.
    """

    reference: str
    quantized: str
    mapping: Mapping[str, str]
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    facts: tuple[TensorFacts, ...]

    def packed(self) -> dict[str, Any]:
        """Return it as a message."""
        return {
            "reference": self.reference,
            "quantized": self.quantized,
            "mapping": dict(self.mapping),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "facts": [asdict(facts) for facts in self.facts],
        }

    @classmethod
    def unpacked(cls, message: dict[str, Any]) -> EntryTask:
        """Return it from a message."""
        facts = tuple(unpacked_facts(facts) for facts in message["facts"])
        unpacked: dict[str, Any] = {**message, "facts": facts}
        return cls(**unpacked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was found.

    Attributes:
        layer, operator: Tensor at which the error grows most, and what computes it; None where that is not known.
        relative_error: Error of that tensor.
        jump: Part of it that its inputs do not have.
        reproduced: True if the file, run afresh on the same inputs, gives what the application's model gave; None where
            that is not known.
        error: Reason for which the layer is not known, for people.
    """

    layer: str | None = None
    operator: str | None = None
    relative_error: float | None = None
    jump: float | None = None
    reproduced: bool | None = None
    error: str | None = None

    def packed(self) -> dict[str, Any]:
        """Return it as a message."""
        return asdict(self)


def find_entry(task: EntryTask) -> Entry:
    """Find the layer at which the error of a call grows most; an error is told in the result."""
    try:
        reproduced = _reproduced(task)
    except EngineError as error:
        return Entry(error=str(error))
    try:
        layers = break_down(task.reference, task.quantized, [task.inputs], task.mapping)
    except (LayersError, EngineError) as error:
        return Entry(reproduced=reproduced, error=str(error))
    if not layers:
        return Entry(reproduced=reproduced, error="the two models have no layer in common")
    worst = max(layers, key=lambda layer: layer.jump)
    return Entry(
        layer=worst.name,
        operator=worst.operator,
        relative_error=worst.relative_error,
        jump=worst.jump,
        reproduced=reproduced,
    )


def _reproduced(task: EntryTask) -> bool | None:
    afresh = open_engine(task.quantized).run(task.inputs)
    by_name = {tensor.name: tensor for tensor in task.facts}
    common = [name for name in task.outputs if name in afresh]
    compared = compare(
        {name: task.outputs[name] for name in common},
        {name: afresh[name] for name in common},
        facts=by_name,
        reference_facts=by_name,
    )
    errors = [
        one.measures.relative_error for one in compared if one.reason is None and one.measures is not None
    ]
    return max(errors) <= SAME_RELATIVE_ERROR if errors else None
