"""The faults: what each does to a service, which type of anomaly names it, and where it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.files import made
from benchmarks.faults.inputs import Array
from benchmarks.faults.services import Service, Spec, load

_OUTPUT = frozenset({"output_distribution", "relative_error", "disagreement", "cosine"})
_INPUT = frozenset({"input_distribution", "clipping"})
_TIME = frozenset({"latency_drift", "stall"})


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: for the table.
        types: of anomalies, those of which each names it rightly.
        begin: makes it happen to a service from now on; what it returns ends what it has started.
        tensor: from a model, an item and the pool of other items, the input tensor in its place.
        never: why it cannot happen to a model, or cannot be seen in principle; empty where it can.
        limit: calls that are waited for; the floor of some pairs is thousands.
    """

    name: str
    types: frozenset[str]
    begin: Callable[[Service], Callable[[], None] | None] | None = None
    tensor: Callable[[Spec, Array], Array] | None = None
    never: Callable[[Spec], str] = lambda _: ""
    limit: int = 20_000


def _scaled(factor: float) -> Callable[[Spec, Array], Array]:
    return lambda spec, x: spec.quantize(spec.normalize(x) * factor)


def _no_scale(spec: Spec) -> str:
    return "tokens have no scale" if spec.name == "magika" else ""


def _raw(spec: Spec, x: Array) -> Array:
    if spec.name == "wake_word":  # its float features, taken for the integers that they should become
        return np.clip(x, -128, 127).astype(np.int8)
    return spec.quantize(x)


def _wrong_type(spec: Spec, x: Array) -> Array:
    tensor = spec.quantize(spec.normalize(x))
    if spec.runtime == "onnxruntime":
        return tensor.astype(np.int64 if tensor.dtype == np.int32 else np.float64)
    # Where the runtime would refuse: the bytes of unsigned integers.
    return (tensor.astype(np.int16) + 128).astype(np.uint8).view(np.int8)


def _refused(spec: Spec) -> str:
    if spec.name in ("basic_pitch", "face"):
        return "`set_tensor` refuses it, and no inference is made"
    return ""


def _turned(spec: Spec, x: Array) -> Array:
    if spec.name == "wake_word":
        return spec.quantize(spec.normalize(x[..., ::-1]))
    return spec.quantize(spec.normalize(x[::-1]))


def _shifted(spec: Spec, x: Array) -> Array:
    if spec.picture:
        return spec.quantize(spec.normalize(np.roll(x, (x.shape[0] // 4, x.shape[1] // 4), (0, 1))))
    if spec.name == "wake_word":
        return spec.quantize(spec.normalize(np.roll(x, 10, -1)))
    return spec.quantize(spec.normalize(np.roll(x, len(x) // 4)))


def _channels(spec: Spec, x: Array) -> Array:
    return spec.quantize(spec.normalize(x[..., ::-1]))


def _nan(spec: Spec, x: Array) -> Array:
    tensor = spec.quantize(spec.normalize(x)).copy()
    tensor.reshape(-1)[:: max(1, min(100, tensor.size))] = np.nan
    return tensor


def _integers(spec: Spec) -> str:
    return "an integer input holds no NaN" if spec.name in ("magika", "digits", "wake_word") else ""


def _inside(recipe: str) -> Callable[[Service], None]:
    """Run another file's model in place of this one, with nothing told to the runtime's Python class."""

    def begin(service: Service) -> None:
        spec = service.spec
        other = load(spec.runtime, made(f"{recipe}:{spec.path()}", spec.path().suffix))
        service.trouble.other = other._sess if spec.runtime == "onnxruntime" else other._interpreter

    return begin


def _file(which: Callable[[Spec], Path]) -> Callable[[Service], None]:
    def begin(service: Service) -> None:
        shutil.copy(which(service.spec), scratch := service.path.with_suffix(".new"))
        scratch.replace(service.path)
        service.load()

    return begin


def _another_version(spec: Spec) -> Path:
    import real_models

    known = {"magika": real_models.magika_dynamic, "silero": real_models.silero_half}
    if spec.name == "wake_word":
        return real_models.packaged("pymicro_wakeword", "models/alexa.tflite")
    if spec.name in known:
        return known[spec.name]()
    return made(f"another:{spec.path()}", spec.path().suffix)


def _badly_calibrated(spec: Spec) -> Path:
    return made(f"badly_calibrated_{spec.name}", spec.path().suffix)


def _not_static(spec: Spec) -> str:
    if spec.name in ("magika", "digits"):
        return ""
    if spec.name == "wake_word":
        return "only its maker can convert it again"
    return "it has no activations that are calibrated"


def _no_int8_weights(spec: Spec) -> str:
    return "its weights are not int8" if spec.name in ("silero", "face") else ""


def _trouble(**fields: float) -> Callable[[Service], None]:
    def begin(service: Service) -> None:
        for name, value in fields.items():
            setattr(service.trouble, name, value)

    return begin


def _neighbour(_: Service) -> Callable[[], None]:
    """Four processes that want the whole of the core that this one is on."""
    burn = "while True: pass"
    cores = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, cores)
    started = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(4)]

    def end() -> None:
        for process in started:
            process.kill()
            process.wait()

    return end


def _lose(service: Service) -> None:
    service.load(lost=True)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("input ×3", _INPUT, tensor=_scaled(3.0), never=_no_scale),
        Fault("input ×1/255", _INPUT, tensor=_scaled(1 / 255), never=_no_scale),
        Fault(
            "channels swapped",
            _INPUT | _OUTPUT,
            tensor=_channels,
            never=lambda spec: "" if spec.name == "face" else "it has one channel",
        ),
        Fault("not normalized", _INPUT, tensor=_raw, never=_no_scale),
        Fault("wrong type", _INPUT | {"error_rate"}, tensor=_wrong_type, never=_refused),
        Fault("upside down", _INPUT | _OUTPUT, tensor=_turned),
        Fault("shifted", _INPUT | _OUTPUT, tensor=_shifted),
        Fault("another domain", _INPUT | _OUTPUT),  # the service draws from the other pool
        Fault("NaN in 1%", frozenset({"nonfinite"}), tensor=_nan, never=_integers),
        Fault("all zero", _INPUT, tensor=lambda spec, x: spec.quantize(spec.normalize(x) * 0)),
        Fault("5% of weights corrupted", _OUTPUT | {"nonfinite"}, _inside("corrupted")),
        Fault("another file", _OUTPUT | {"model_changed"}, _file(_another_version)),
        Fault("badly calibrated", _OUTPUT | {"model_changed"}, _file(_badly_calibrated), never=_not_static),
        Fault("saturating", _OUTPUT, _inside("saturated"), never=_no_int8_weights),
        Fault("latency +30%", _TIME, _trouble(factor=1.3)),
        Fault("latency ×3", _TIME, _trouble(factor=3.0)),
        Fault("stalls ×20 in 2%", _TIME, _trouble(stalls=0.02)),
        Fault("starving neighbour", _TIME, _neighbour),
        Fault("leak 1 kB", frozenset({"memory_growth"}), _trouble(leak=1000)),
        Fault("leak 10 kB", frozenset({"memory_growth"}), _trouble(leak=10_000)),
        Fault("errors 1%", frozenset({"error_rate"}), _trouble(errors=0.01)),
        Fault("timeouts 2%", frozenset({"timeout"}), _trouble(timeouts=0.02), limit=1000),
        Fault("lost provider", frozenset({"fallback"}), _lose),
    )
}

TIMEOUT = 0.25
"""Seconds, that an operator sets for the pair with timeouts; a call that hangs waits for half as long again."""
