"""The runtimes are listed once, and each is read by one reader."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from otel_quantmon import runtimes
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts
from otel_quantmon.runtimes import registry
from otel_quantmon.runtimes.attachment import Runtime
from otel_quantmon.runtimes.tflite.reading import tensor

LISTED = {**registry.ONNXRUNTIME, **registry.TFLITE}


def test_the_registry_lists_every_folder() -> None:
    """A runtime that is not listed would never be observed."""
    folders = {path.parent.name for path in Path(runtimes.__file__).parent.glob("*/attach.py")}
    assert set(LISTED.values()) == folders


@pytest.mark.parametrize("folder", sorted(set(LISTED.values())))
def test_a_folder_says_how_its_runtime_is_observed(folder: str) -> None:
    """Importing it needs no runtime."""
    assert isinstance(import_module(f"otel_quantmon.runtimes.{folder}.attach").RUNTIME, Runtime)


def detail(scales: list[float], dtype: type = np.int8) -> dict[str, object]:
    parameters = {"scales": scales, "zero_points": [3] * len(scales), "quantized_dimension": 1}
    return {"name": "t", "shape": [1, 2], "dtype": dtype, "quantization_parameters": parameters}


def test_a_tensor_is_read_with_its_quantization() -> None:
    """Of the whole tensor with one scale, along an axis with several."""
    of_all = QuantizationParameters((0.5,), (3,), "int8", None)
    assert tensor(detail([0.5])) == TensorFacts("t", "int8", (1, 2), of_all)
    along_axis = QuantizationParameters((0.5, 2.0), (3, 3), "int8", 1)
    assert tensor(detail([0.5, 2.0])).quantization == along_axis


@pytest.mark.parametrize("scales", [[], [0.0], [0.5, 0.0]])
def test_a_scale_of_0_is_no_quantization(scales: list[float]) -> None:
    """Tensors that hold shapes come with one, and dividing by it would make every value an infinity."""
    assert tensor(detail(scales)) == TensorFacts("t", "int8", (1, 2), None)


def test_a_type_is_named_as_its_dtype() -> None:
    """Also those whose class has another name in releases of numpy before 2."""
    assert tensor(detail([], np.bool_)).dtype == "bool"
