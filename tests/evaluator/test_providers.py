"""Where a worker runs float models: on a GPU if ONNX Runtime has a provider for one, and in float32 there too."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import real_models

from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.engines.onnx import _providers


@pytest.mark.parametrize(
    ("there", "accelerated", "taken"),
    [
        (["CUDAExecutionProvider", "CPUExecutionProvider"], True, ["CUDAExecutionProvider"]),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], False, []),
        (["TensorrtExecutionProvider", "CoreMLExecutionProvider", "CPUExecutionProvider"], True, []),
        (["AzureExecutionProvider", "CPUExecutionProvider"], True, []),
    ],
)
def test_only_providers_that_keep_float32_are_taken(
    there: list[str], accelerated: bool, taken: list[str]
) -> None:
    """By the names that ONNX Runtime gives; the CPU takes what is left, and CUDA rounds nothing to 19 bits."""
    runtime = SimpleNamespace(get_available_providers=lambda: there)
    found = _providers(runtime, accelerated=accelerated)
    assert [name for name, _ in found] == [*taken, "CPUExecutionProvider"]
    assert dict(found).get("CUDAExecutionProvider") in (None, {"use_tf32": "0"})


def test_a_worker_has_the_same_outputs_with_and_without() -> None:
    """On what this machine has: the CPU alone, or a GPU whose sums are of another order."""
    inputs = {"bytes": real_models.magika_inputs(1)}
    path = str(real_models.magika_float())
    plain, accelerated = open_engine(path), open_engine(path, accelerated=True)
    (expected,), (found,) = plain.run(inputs).values(), accelerated.run(inputs).values()
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert plain.providers == ("CPUExecutionProvider",)
    assert accelerated.providers[-1] == "CPUExecutionProvider"
