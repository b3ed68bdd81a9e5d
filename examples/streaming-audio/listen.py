"""A wake word in a stream of sound: an int8 model that keeps its state from step to step, with a deadline for each.

    pip install otel-quantmon[otlp] ai-edge-litert pymicro-wakeword pymicro-features numpy
    python listen.py [RECORDING.wav]

A recording is 16 kHz, 16 bit, mono. Without one it listens to five seconds of noise, in which nobody speaks.
"""

from __future__ import annotations

import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pymicro_wakeword
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from otel_quantmon import Settings, TFLiteInstrumentor

WAKE_WORD = Path(pymicro_wakeword.__file__).parent / "models" / "hey_jarvis.tflite"

STEP = 0.03
"""Seconds of sound that the model takes at a time. A step that takes longer than this falls behind the microphone."""


def chunks(arguments: list[str]) -> Iterator[bytes]:
    """Sound as a microphone gives it: 10 ms at a time."""
    if not arguments:
        noise = np.random.default_rng(0).normal(0, 1000, (500, 160)).astype("<i2")
        yield from (chunk.tobytes() for chunk in noise)
        return
    with wave.open(arguments[0]) as recording:
        if (recording.getframerate(), recording.getsampwidth(), recording.getnchannels()) != (16_000, 2, 1):
            sys.exit(f"{arguments[0]}: convert it to 16 kHz, 16 bit, mono")
        while chunk := recording.readframes(160):
            yield chunk


class WakeWord:
    """The model: its variables keep what it has heard, so steps have to come in their order."""

    def __init__(self) -> None:
        self._interpreter = Interpreter(str(WAKE_WORD))
        self._interpreter.allocate_tensors()
        (self._source,) = self._interpreter.get_input_details()
        (self._sink,) = self._interpreter.get_output_details()
        self._features = pymicro_wakeword.MicroWakeWordFeatures()
        self._waiting: list[NDArray[np.float32]] = []

    def hear(self, chunk: bytes) -> float | None:
        """The probability of the wake word after a chunk; None as long as a step is not complete."""
        for feature in self._features.process_streaming(chunk):
            self._waiting.append(feature.reshape(1, 1, 40))
        if len(self._waiting) < 3:
            return None
        step, self._waiting = np.concatenate(self._waiting[:3], axis=1), self._waiting[3:]
        scale, zero_point = self._source["quantization"]
        codes = np.clip(np.round(step / scale + zero_point), -128, 127).astype(np.int8)
        self._interpreter.set_tensor(self._source["index"], codes)
        self._interpreter.invoke()
        return float(self._interpreter.get_tensor(self._sink["index"])[0, 0]) * self._sink["quantization"][0]


def main(arguments: list[str]) -> None:
    reader = InMemoryMetricReader()
    # LiteRT cannot be stopped: a step past its deadline is counted, and returns all the same.
    settings = Settings(models={"hey_jarvis": {"timeout": STEP, "spans": "none"}})
    TFLiteInstrumentor().instrument(meter_provider=MeterProvider([reader]), settings=settings)

    model = WakeWord()
    heard = [probability for chunk in chunks(arguments) if (probability := model.hear(chunk)) is not None]
    print(f"{len(heard)} steps, highest probability of the wake word {max(heard, default=0.0):.2f}")

    late = steps = 0
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        if metric.name == "quantmon.inference.duration":
            for point in metric.data.data_points:
                assert isinstance(point, HistogramDataPoint)
                steps += point.count
                if (point.attributes or {}).get("error.type") == "timeout":
                    late += point.count
    print(f"{steps} inferences counted, {late} of them later than {1000 * STEP:.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
