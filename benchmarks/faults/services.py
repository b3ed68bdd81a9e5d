"""Models in service: what an application has around a model, and a place below the instrumentation for faults.

`Below` stands between the runtime's Python class, whose methods are observed, and its native object. What is done
there happens inside the observed call, as it would if the runtime did it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import real_models

from benchmarks.faults import inputs
from benchmarks.faults.inputs import Array


@dataclass
class Trouble:
    """What goes wrong in a call. All of it is off at first.

    Attributes:
        factor: of the call's own time, which is made longer by work.
        stalls: share of calls that take twenty times as long.
        errors: share of calls that raise.
        timeouts: share of calls that wait for ``wait`` seconds first.
        leak: bytes that each call keeps, around the runtime's method.
        other: native object that runs instead of the model's.
    """

    factor: float = 1.0
    stalls: float = 0.0
    errors: float = 0.0
    timeouts: float = 0.0
    wait: float = 0.0
    leak: int = 0
    other: Any = None
    kept: list[bytes] = field(default_factory=list[bytes])
    draw: Callable[[], float] = field(default_factory=lambda: random.Random(7).random)


class Below:
    """The native object ``inner``, with ``trouble``."""

    def __init__(self, inner: Any, trouble: Trouble) -> None:
        self._inner, self._trouble = inner, trouble

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._trouble.other or self._inner, name)
        return self._troubled(found) if name in ("run", "Invoke") else found

    def _troubled(self, run: Callable[..., Any]) -> Callable[..., Any]:
        trouble = self._trouble

        def troubled(*args: Any) -> Any:
            if trouble.errors and trouble.draw() < trouble.errors:
                raise RuntimeError("the device does not answer")
            if trouble.timeouts and trouble.draw() < trouble.timeouts:
                time.sleep(trouble.wait)
            began = time.perf_counter()
            result = run(*args)
            more = trouble.factor - 1.0
            if trouble.stalls and trouble.draw() < trouble.stalls:
                more = 19.0
            if more:
                end = began + (time.perf_counter() - began) * (1.0 + more)
                while time.perf_counter() < end:
                    pass
            return result

        return troubled


@dataclass(frozen=True)
class Spec:
    """One model and its data.

    Attributes:
        name: of the model's file, and so of the model.
        runtime: ``onnxruntime`` or ``litert``.
        path: of the file that the vendor's tool has made.
        reference: its float original, None where there is none.
        data: items as they come, in the order in which they come.
        domain: items from elsewhere, of the same shape.
        normalize: from an item to what the float model takes.
        quantize: from that to the input tensor.
        picture: axes of height and width of an item; None if it is none.
        scores: whether the first output is scores of classes.
    """

    name: str
    runtime: str
    path: Callable[[], Path]
    reference: Callable[[], Path] | None
    data: Callable[[], list[Array]]
    domain: Callable[[], list[Array]]
    normalize: Callable[[Array], Array]
    quantize: Callable[[Array], Array]
    picture: bool = False
    scores: bool = False


def _int8(scale: float, zero: int) -> Callable[[Array], Array]:
    return lambda x: np.clip(np.rint(np.nan_to_num(x) / scale) + zero, -128, 127).astype(np.int8)


def _float(x: Array) -> Array:
    return x.astype(np.float32)


def _silero_data(sound: Array) -> list[Array]:
    # 512 new samples after the last 64 of those before, as the package gives them; the application has int16.
    return [np.rint(w * 32767) for w in inputs.windows(sound, 576, 512)]


def silero_int8() -> Path:
    """`real_models.silero_half` quantized dynamically."""
    from benchmarks.faults.files import made

    return made("silero_int8", ".onnx")


SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            "magika",
            "onnxruntime",
            real_models.magika_qdq,
            real_models.magika_float,
            lambda: inputs.file_bytes(600),
            lambda: inputs.file_bytes(200, binary=True),
            lambda x: x,
            lambda x: np.nan_to_num(x).astype(np.int32)[None],
            scores=True,
        ),
        Spec(
            "silero",
            "onnxruntime",
            silero_int8,
            real_models.silero_half,
            lambda: _silero_data(inputs.voice(600)),
            lambda: _silero_data(inputs.music(120)),
            lambda x: x / 32768.0,
            lambda x: _float(x)[None],
        ),
        Spec(
            "digits",
            "litert",
            real_models.digits_tflite_full_integer,
            real_models.digits_tflite_float,
            lambda: inputs.digits(1797),
            lambda: inputs.small_cuttings(300),
            lambda x: x / 16.0,
            lambda x: _int8(0.003921568859368563, -128)(x)[None],
            picture=True,
            scores=True,
        ),
        Spec(
            "basic_pitch",
            "litert",
            real_models.basic_pitch_tflite_weight_only,
            real_models.basic_pitch_tflite,
            lambda: [np.rint(w * 32767) for w in inputs.windows(inputs.music(400, 22050), 43844, 36164)],
            lambda: [np.rint(w * 32767) for w in inputs.windows(inputs.voice(120, 22050), 43844, 36164)],
            lambda x: x / 32768.0,
            lambda x: _float(x)[None, :, None],
        ),
        Spec(
            "wake_word",
            "litert",
            real_models.wake_word,
            None,
            lambda: inputs.speech_features(inputs.voice(600)),
            lambda: inputs.speech_features(inputs.music(120)),
            lambda x: x,
            _int8(0.10196078568696976, -128),
        ),
        Spec(
            "face",
            "litert",
            real_models.face_detection_float16,
            None,
            lambda: inputs.cuttings(400),
            lambda: inputs.large_digits(200),
            lambda x: x / 127.5 - 1.0,
            lambda x: _float(x)[None],
            picture=True,
        ),
    )
}


class Service:
    """A model as an application has it.

    Args:
        spec: of the model.
        path: of the file it is loaded from.
        trouble: for what goes wrong inside its calls.
    """

    def __init__(self, spec: Spec, path: Path, trouble: Trouble) -> None:
        self.spec, self.path, self.trouble = spec, path, trouble
        self.load()

    def load(self, *, lost: bool = False) -> None:
        """Load the model, as at the start; with ``lost``, without the provider or delegate that it is meant for."""
        # One is dropped before the next is loaded, as where memory is scarce.
        self._model: Any = None
        self._model = load(self.spec.runtime, self.path, lost=lost)
        attribute = "_sess" if self.spec.runtime == "onnxruntime" else "_interpreter"
        setattr(self._model, attribute, Below(getattr(self._model, attribute), self.trouble))
        self._state = np.zeros((2, 1, 128), np.float32)
        if self.spec.runtime == "litert":
            self._input = self._model.get_input_details()[0]["index"]
            self._outputs = [(d["index"], d["quantization"]) for d in self._model.get_output_details()]
        else:
            self._input = self._model.get_inputs()[0].name

    def call(self, tensor: Array) -> tuple[list[Array], float]:
        """Run the model: outputs, and seconds inside the runtime's method. Raises what that raises."""
        # Around the method: new memory takes longer than a small model.
        if self.trouble.leak:
            self.trouble.kept.append(b"\1" * self.trouble.leak)
        if self.spec.runtime == "litert":
            self._model.set_tensor(self._input, tensor)
            began = time.perf_counter()
            self._model.invoke()
            took = time.perf_counter() - began
            return [_dequantized(self._model.get_tensor(at), *q) for at, q in self._outputs], took
        feeds = {self._input: tensor}
        if self.spec.name == "silero":
            feeds["state"] = self._state
        began = time.perf_counter()
        results = self._model.run(None, feeds)
        took = time.perf_counter() - began
        if self.spec.name == "silero":
            self._state = results[1]
        return results, took

    @property
    def state(self) -> Array:
        """What a recurrent model is given beside its input."""
        return self._state


def _dequantized(value: Array, scale: float, zero: int) -> Array:
    return (value.astype(np.float32) - zero) * np.float32(scale) if scale else value


def load(runtime: str, path: Path, *, lost: bool = False) -> Any:
    """A model on one thread; with ``lost`` it asks for a GPU that is not there, or has no XNNPACK."""
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = ["CUDAExecutionProvider"] * lost + ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind: dict[str, Any] = {}
    if lost:
        kind["experimental_op_resolver_type"] = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), num_threads=1, **kind)
    interpreter.allocate_tensors()
    return interpreter


class Reference:
    """A float original that the benchmark runs for itself, where the instrumentation does not see it."""

    def __init__(self, spec: Spec, path: Path) -> None:
        self._spec = spec
        self._model = load(spec.runtime, path)

    def outputs(self, tensor: Array, state: Array) -> list[Array]:
        """Of the model for a float tensor."""
        if self._spec.runtime == "onnxruntime":
            feeds: dict[str, Array] = {self._model.get_inputs()[0].name: tensor}
            if self._spec.name == "silero":
                feeds["state"] = state
            names = [output.name for output in self._model.get_outputs()]
            return self._model._sess.run(names, feeds, None)
        native = self._model._interpreter
        native.SetTensor(self._model.get_input_details()[0]["index"], tensor)
        native.Invoke()
        return [self._model.get_tensor(d["index"]) for d in self._model.get_output_details()]
