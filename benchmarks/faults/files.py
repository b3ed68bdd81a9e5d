"""Model files that are not what they should be, made once and kept beside the tests' models.

As a script, ``python -m benchmarks.faults.files RECIPE TARGET`` makes one, in a process of its own.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import real_models

from benchmarks.faults import ROOT


@functools.cache
def made(recipe: str, suffix: str) -> Path:
    """The file that ``recipe``, a name and after a colon the path of a model, makes."""
    key = hashlib.sha256(Path(__file__).read_bytes() + recipe.encode()).hexdigest()[:16]
    target = real_models.cache_folder() / f"fault-{recipe.partition(':')[0]}-{key}{suffix}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            path = Path(scratch) / target.name
            command = [sys.executable, "-m", "benchmarks.faults.files", recipe, str(path)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode or not path.exists():
                raise RuntimeError(f"{recipe} could not be made:\n{done.stderr[-4000:]}")
            path.replace(target)
    return target


def _change_weights(source: Path, target: Path, change: Callable[[bytes, bool], bytes]) -> None:
    """Pass each constant of at least 256 bytes through ``change``, which is told whether it is int8."""
    if source.suffix == ".onnx":
        import onnx

        model = onnx.load(str(source))
        tensors = list(model.graph.initializer)
        tensors += [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
        for tensor in tensors:
            if len(tensor.raw_data) >= 256:
                integer = tensor.data_type == onnx.TensorProto.INT8
                tensor.raw_data = change(tensor.raw_data, integer)
        onnx.save(model, str(target))
        return
    from ai_edge_litert.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.read_model(str(source))
    int8 = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors if tensor.type == 9}
    for number, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data) >= 256:
            content = change(bytes(bytearray(buffer.data)), number in int8)
            buffer.data = np.frombuffer(content, np.uint8)
    flatbuffer_utils.write_model(model, str(target))


def corrupted(target: Path, source: Path, share: float = 0.05) -> None:
    """Other bytes in ``share`` of the places."""
    rng = np.random.default_rng(5)

    def change(content: bytes, _integer: bool) -> bytes:
        values = np.frombuffer(content, np.uint8).copy()
        hit = rng.random(len(values)) < share
        values[hit] = rng.integers(0, 256, int(hit.sum()))
        return values.tobytes()

    _change_weights(source, target, change)


def another(target: Path, source: Path) -> None:
    """Another version: one byte in two hundred differs."""
    corrupted(target, source, 0.005)


def saturated(target: Path, source: Path) -> None:
    """Int8 weights at half of their range at most, which is what pairs of large products lose in 16 bits."""

    def change(content: bytes, integer: bool) -> bytes:
        if not integer:
            return content
        return np.clip(np.frombuffer(content, np.int8), -64, 63).tobytes()

    _change_weights(source, target, change)


def silero_int8(target: Path, _source: Path | None = None) -> None:
    """Dynamic quantization."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(real_models.silero_half()), str(target), weight_type=QuantType.QUInt8, reduce_range=True
    )


def badly_calibrated_magika(target: Path, _source: Path | None = None) -> None:
    """Static quantization that was shown nothing but empty files."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Empty:
        def __init__(self) -> None:
            self._left = iter([{"bytes": np.full((4, 2048), 256, np.int32)}] * 4)

        def get_next(self) -> Any:
            return next(self._left, None)

    prepared = target.with_name("prepared.onnx")
    quant_pre_process(str(real_models.magika_float()), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Empty(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )


def badly_calibrated_digits(target: Path, _source: Path | None = None) -> None:
    """Full-integer conversion that was shown digits in faint ink."""
    import tensorflow as tf

    faint = real_models.digits_inputs(100) * np.float32(0.2)
    net = tf.keras.models.load_model(str(real_models.digits_keras()))
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in faint)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    target.write_bytes(converter.convert())


if __name__ == "__main__":
    _recipe, _, _source = sys.argv[1].partition(":")
    globals()[_recipe](Path(sys.argv[2]), Path(_source))
