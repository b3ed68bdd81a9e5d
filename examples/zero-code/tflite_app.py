"""Listen for "hey Jarvis" with an int8 model on LiteRT: an ordinary application that knows no OpenTelemetry.

    pip install ai-edge-litert pymicro-wakeword numpy
    python tflite_app.py [RECORDING.wav]

and the same observed:

    pip install otel-quantmon[otlp]
    opentelemetry-instrument --traces_exporter console --metrics_exporter console python tflite_app.py

A recording is 16 kHz, 16 bit, mono. Without one it listens to ten seconds of noise, in which nobody speaks.
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

interpreter = Interpreter(str(Path(pymicro_wakeword.__file__).parent / "models" / "hey_jarvis.tflite"))
interpreter.allocate_tensors()
(source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()


def audio(arguments: list[str]) -> bytes:
    if not arguments:
        return np.random.default_rng(0).normal(0, 1000, 10 * 16_000).astype("<i2").tobytes()
    with wave.open(arguments[0]) as recording:
        if (recording.getframerate(), recording.getsampwidth(), recording.getnchannels()) != (16_000, 2, 1):
            sys.exit(f"{arguments[0]}: convert it to 16 kHz, 16 bit, mono")
        return recording.readframes(recording.getnframes())


def steps(sound: bytes) -> Iterator[NDArray[np.float32]]:
    """Features of 30 ms each, float32 (1, 3, 40): what the model takes at a time."""
    waiting: list[NDArray[np.float32]] = []
    for feature in pymicro_wakeword.MicroWakeWordFeatures().process_streaming(sound):
        waiting.append(feature.reshape(1, 1, 40))
        if len(waiting) == 3:
            yield np.concatenate(waiting, axis=1)
            waiting.clear()


def probability(step: NDArray[np.float32]) -> float:
    scale, zero_point = source["quantization"]
    codes = np.clip(np.round(step / scale + zero_point), -128, 127).astype(np.int8)
    interpreter.set_tensor(source["index"], codes)
    interpreter.invoke()
    return float(interpreter.get_tensor(sink["index"])[0, 0]) * sink["quantization"][0]


def main(arguments: list[str]) -> None:
    heard = [probability(step) for step in steps(audio(arguments))]
    print(f"{len(heard)} steps, highest probability of the wake word {max(heard, default=0.0):.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
