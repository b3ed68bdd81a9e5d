"""Real models for the tests: found in installed packages, or quantized from those by the vendors' own tools.

Every function returns the path of a model file. A file that has to be made is made once, by a process of its
own (so that no test process imports TensorFlow or a quantizer by accident), and kept in
``$QUANTMON_TEST_CACHE`` or ``~/.cache/otel-quantmon``. The cache key covers this file, the source texts and the
versions of the packages a recipe uses. A file appears under its name complete or not at all. Processes may
ask for the same one at once: one makes it, the others wait.

Run as a script to make all of them beforehand: ``python tests/real_models.py``.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from source_texts import source_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ONNX_TOOLS = ("onnx", "onnxruntime", "numpy")
_TFLITE_TOOLS = ("tensorflow", "keras", "scikit-learn", "numpy")


# --- models that packages carry ---------------------------------------------------------------------------


@functools.cache
def packaged(package: str, relative: str) -> Path:
    """The file ``relative`` of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"install {package} (test dependencies): its {relative} is a test model")
    path = Path(spec.origin).parent / relative
    if not path.is_file():
        raise FileNotFoundError(f"{package} no longer carries {relative}")
    return path


def magika_float() -> Path:
    """File types, float32; input ``bytes`` int32 (batch, 2048), output ``target_label`` (batch, 214)."""
    return packaged("magika", "models/standard_v3_3/model.onnx")


def wake_word() -> Path:
    """Streaming wake word: int8 in, uint8 out, state in TFLite variables."""
    return packaged("pymicro_wakeword", "models/hey_jarvis.tflite")


def basic_pitch_onnx() -> Path:
    """Audio to notes, float32; input (batch, 43844, 1), three outputs."""
    return packaged("basic_pitch", "saved_models/icassp_2022/nmp.onnx")


def basic_pitch_tflite() -> Path:
    """The network of :func:`basic_pitch_onnx` as TFLite."""
    return packaged("basic_pitch", "saved_models/icassp_2022/nmp.tflite")


def face_detection_float16() -> Path:
    """Face detector with float16 weights behind DEQUANTIZE operators."""
    return packaged("mediapipe", "modules/face_detection/face_detection_short_range.tflite")


def silero_float() -> Path:
    """Voice activity, recurrent: its state is an input and an output; float32."""
    return packaged("silero_vad", "data/silero_vad.onnx")


def silero_half() -> Path:
    """:func:`silero_float` for 16 kHz alone, half of its rates: float32 too, in spite of the file's name."""
    return packaged("silero_vad", "data/silero_vad_half.onnx")


# --- models made from them --------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where made models are kept; created on first use."""
    folder = Path(os.environ.get("QUANTMON_TEST_CACHE") or Path.home() / ".cache" / "otel-quantmon")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        # A release candidate of TensorFlow brings Keras under another name.
        return importlib.metadata.version(f"{distribution}-nightly")


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Wait for another process that makes the same file."""
    if target.exists():
        yield
        return
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_RECIPES: dict[str, Callable[[Path], None]] = {}


def _made(suffix: str, *distributions: str) -> Callable[[Callable[[Path], None]], Callable[[], Path]]:
    """Turn a recipe, which writes a model to the path it is given, into a cached function of that path."""

    def decorate(recipe: Callable[[Path], None]) -> Callable[[], Path]:
        name = recipe.__name__
        _RECIPES[name] = recipe

        @functools.cache
        def path() -> Path:
            if "ai-edge-quantizer" in distributions and "QUANTMON_TEST_OLDEST" in os.environ:
                import pytest

                pytest.skip("ai-edge-quantizer needs newer runtimes than the oldest that are supported")
            here = Path(__file__)
            key = hashlib.sha256(here.read_bytes() + here.with_name("source_texts.py").read_bytes())
            for distribution in distributions:
                key.update(f"\n{distribution} {_version(distribution)}".encode())
            target = cache_folder() / f"{name}-{key.hexdigest()[:16]}{suffix}"
            with _alone(target):
                if target.exists():
                    return target
                with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
                    made = Path(scratch) / target.name
                    _run_recipe(name, made)
                    made.replace(target)
            return target

        path.__name__, path.__doc__ = name, recipe.__doc__
        return path

    return decorate


def _run_recipe(name: str, target: Path) -> None:
    # The tests' own settings must not reach the tools: a recipe is not the thing under test.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "QUANTMON_"))}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONHASHSEED": "0"}
    if "QUANTMON_TEST_CACHE" in os.environ:
        environment["QUANTMON_TEST_CACHE"] = os.environ["QUANTMON_TEST_CACHE"]
    command = [sys.executable, __file__, name, str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        raise RuntimeError(f"{name} could not be made:\n{done.stderr[-4000:]}")


@_made(".onnx", *_ONNX_TOOLS)
def one_op_onnx(target: Path) -> None:
    """``z = x + y``, float32 (4,): the smallest session there is."""
    import onnx
    from onnx import TensorProto, helper

    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xyz")
    graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "one_op", [x, y], [z])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


class _MagikaCalibration:
    """onnxruntime's CalibrationDataReader, on 32 real files in batches of 8."""

    def __init__(self) -> None:
        features = magika_inputs(32)
        self._batches: Iterator[dict[str, Any]] = iter(
            {"bytes": features[i : i + 8]} for i in range(0, 32, 8)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def _quantize_magika(target: Path, form: str) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_name("prepared.onnx")
    quant_pre_process(str(magika_float()), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        _MagikaCalibration(),
        quant_format=QuantFormat[form],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # Seven bits: eight saturate on CPUs without VNNI, and the tests must not depend on the CPU.
        reduce_range=True,
    )


@_made(".onnx", "magika", *_ONNX_TOOLS)
def magika_qdq(target: Path) -> None:
    """:func:`magika_float` quantized statically, QuantizeLinear and DequantizeLinear around operators."""
    _quantize_magika(target, "QDQ")


@_made(".onnx", "magika", *_ONNX_TOOLS)
def magika_qoperator(target: Path) -> None:
    """:func:`magika_float` quantized statically, with QLinear operators."""
    _quantize_magika(target, "QOperator")


@_made(".onnx", "magika", *_ONNX_TOOLS)
def magika_dynamic(target: Path) -> None:
    """:func:`magika_float` quantized dynamically: uint8 weights, activations quantized at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Conv becomes ConvInteger, which took no int8 weights before ONNX Runtime 1.24.
    quantize_dynamic(str(magika_float()), str(target), weight_type=QuantType.QUInt8, reduce_range=True)


@_made(".onnx", "basic-pitch", *_ONNX_TOOLS)
def basic_pitch_onnx_float16(target: Path) -> None:
    """:func:`basic_pitch_onnx` with float16 weights and operators, float32 inputs and outputs."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(basic_pitch_onnx())), keep_io_types=True)
    onnx.save(model, str(target))


@_made(".tflite", "basic-pitch", "ai-edge-quantizer")
def basic_pitch_tflite_int8(target: Path) -> None:
    """:func:`basic_pitch_tflite` with int8 weights and float activations (``dynamic_wi8_afp32``).

    Its outputs are not always the same for the same input: in LiteRT 2.3 about one interpreter in fifty gives others
    from its second run on (XNNPACK's convolutions that quantize activations as they run; none without the delegate).
    Where values are compared, take :func:`basic_pitch_tflite_weight_only`.
    """
    _quantize_basic_pitch(target, "dynamic_wi8_afp32")


@_made(".tflite", "basic-pitch", "ai-edge-quantizer")
def basic_pitch_tflite_weight_only(target: Path) -> None:
    """:func:`basic_pitch_tflite` with int8 weights that are dequantized as they are used."""
    _quantize_basic_pitch(target, "weight_only_wi8_afp32")


def _quantize_basic_pitch(target: Path, name: str) -> None:
    from ai_edge_quantizer import quantizer, recipe

    quantize = quantizer.Quantizer(str(basic_pitch_tflite()), getattr(recipe, name)())
    quantize.quantize().export_model(str(target))


@_made("", *_TFLITE_TOOLS)
def _digits(target: Path) -> None:
    """A folder with a small convolutional net for 8x8 digits, trained for a few seconds, in each of its forms.

    By one process, since to import TensorFlow takes longer than to convert the net.
    """
    import keras
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(7)
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    net.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    labels = np.asarray(load_digits().target)
    net.fit(digits_inputs(len(labels)), labels, batch_size=64, epochs=8, verbose=0)

    def full_integer(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in digits_inputs(200))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8

    def float16(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    def dynamic(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    target.mkdir()
    net.save(target / "digits.keras")
    forms = {
        digits_tflite_float: lambda _: None,
        digits_tflite_full_integer: full_integer,
        digits_tflite_float16: float16,
        digits_tflite_dynamic: dynamic,
    }
    for form, configure in forms.items():
        converter = tf.lite.TFLiteConverter.from_keras_model(net)
        configure(converter)
        (target / f"{form.__name__}.tflite").write_bytes(converter.convert())


def digits_keras() -> Path:
    """The digits net as it was trained, for those who convert it otherwise."""
    return _digits() / "digits.keras"


def digits_tflite_float() -> Path:
    """The digits net, float32; input (batch, 8, 8, 1) in 0..1, output (batch, 10) probabilities."""
    return _digits() / "digits_tflite_float.tflite"


def digits_tflite_full_integer() -> Path:
    """The digits net with int8 weights, activations, input and output."""
    return _digits() / "digits_tflite_full_integer.tflite"


def digits_tflite_float16() -> Path:
    """The digits net with float16 weights, dequantized before use."""
    return _digits() / "digits_tflite_float16.tflite"


def digits_tflite_dynamic() -> Path:
    """The digits net with int8 weights and float activations (dynamic range)."""
    return _digits() / "digits_tflite_dynamic.tflite"


# --- real inputs for them ---------------------------------------------------------------------------------


def magika_inputs(n: int) -> NDArray[np.int32]:
    """Features of ``n`` sources of :func:`source_texts` as magika extracts them: int32 (n, 2048).

    Magika reads up to ``block_size`` bytes at each end of a file, strips white space, takes ``beg_size``
    bytes of the first and ``end_size`` of the last and pads with ``padding_token``; its own configuration
    file has the sizes.
    """
    import numpy as np

    config = json.loads(magika_float().with_name("config.min.json").read_text())
    block, padding = config["block_size"], config["padding_token"]
    rows = np.full((n, config["beg_size"] + config["end_size"]), padding, dtype=np.int32)
    for row, content in zip(rows, source_texts(n, 2 * block + 1), strict=True):
        first = content[:block].lstrip()[: config["beg_size"]]
        last = content[-block:].rstrip()[-config["end_size"] :]
        row[: len(first)] = np.frombuffer(first, np.uint8)
        row[len(row) - len(last) :] = np.frombuffer(last, np.uint8)
    return rows


def digits_inputs(n: int) -> NDArray[np.float32]:
    """The first ``n`` images of scikit-learn's digits (repeated past 1797): float32 (n, 8, 8, 1) in 0..1."""
    import numpy as np
    from sklearn.datasets import load_digits

    images = np.asarray(load_digits().images, dtype=np.float32)
    return np.resize(images, (n, 8, 8))[..., None] / np.float32(16)


def main(arguments: list[str]) -> None:
    """``NAME TARGET``: run one recipe. No arguments: make every model."""
    if arguments:
        name, target = arguments
        _RECIPES[name](Path(target))
        return
    for name in _RECIPES:
        print(globals()[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
