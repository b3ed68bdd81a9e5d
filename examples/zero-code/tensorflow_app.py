"""Read handwritten digits with an int8 model on TensorFlow Lite: an ordinary application that knows no OpenTelemetry.

    pip install tensorflow scikit-learn
    python tensorflow_app.py

and the same observed:

    pip install otel-quantmon[otlp]
    opentelemetry-instrument --traces_exporter console --metrics_exporter console python tensorflow_app.py

It trains a small network on the digits that scikit-learn carries, which takes some seconds, quantizes it, and reads 200
digits that the network has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Images = NDArray[np.float32]
SEEN = 1500


def quantized(images: Images, labels: NDArray[np.int64]) -> bytes:
    """A full-integer model, calibrated with some of the images that it was trained on."""
    network = tf.keras.Sequential(
        [
            tf.keras.layers.Input((8, 8, 1)),
            tf.keras.layers.Conv2D(8, 3, activation="relu"),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(10),
        ],
        name="digits",
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss)
    network.fit(images, labels, epochs=10, verbose=0)

    def calibration() -> Iterator[list[Images]]:
        for image in images[:100]:
            yield [image[None]]

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = calibration
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def main() -> None:
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    interpreter = tf.lite.Interpreter(model_content=quantized(images[:SEEN], digits.target[:SEEN]))
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    right = 0
    for image, label in zip(images[SEEN : SEEN + 200], digits.target[SEEN : SEEN + 200], strict=True):
        codes = np.clip(np.round(image[None] / scale + zero_point), -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], codes)
        interpreter.invoke()
        right += int(interpreter.get_tensor(sink["index"])[0].argmax() == label)
    print(f"{right} of 200 digits read")


if __name__ == "__main__":
    main()
