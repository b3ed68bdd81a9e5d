"""The model of the demo: Google's file-type classifier magika, whose wheel carries it as float32, made int8 here.

``python -m otel_quantmon.cli.demo.magika FOLDER`` makes three files: the float original, the model that is served, and
a worse one that somebody will deploy by mistake.
"""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOAT", "NEXT", "SERVED", "Magika", "texts"]

FLOAT, SERVED, NEXT = "magika.onnx", "magika_int8.onnx", "next_version.onnx"
"""Files in the folder of the demo."""

_CALIBRATION = 32


class Magika:
    """What the package says of its model.

    Raises:
        FileNotFoundError: The package has no model where it is known to be.
    """

    def __init__(self) -> None:
        spec = find_spec("magika")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("the package magika is not installed")
        found = sorted(Path(spec.origin).parent.glob("models/standard_*/model.onnx"))
        if not found:
            raise FileNotFoundError("the package magika no longer carries models/standard_*/model.onnx")
        self.file = found[-1]
        config: dict[str, Any] = json.loads(self.file.with_name("config.min.json").read_text("utf-8"))
        self._padding: int = config["padding_token"]
        self._block: int = config["block_size"]
        self._begin: int = config["beg_size"]
        self._end: int = config["end_size"]

    def features(self, content: bytes) -> NDArray[np.int32]:
        """What the model reads of a file: its first and its last bytes, padded; int32 (1, 2048)."""
        row = np.full(self._begin + self._end, self._padding, np.int32)
        first = content[: self._block].lstrip()[: self._begin]
        last = content[-self._block :].rstrip()[-self._end :]
        row[: len(first)] = np.frombuffer(first, np.uint8)
        row[len(row) - len(last) :] = np.frombuffer(last, np.uint8)
        return row[None]


def texts() -> list[bytes]:
    """Sources of Python's own library: real files, which every machine has."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = sorted(path for path in library.glob("*.py") if path.stat().st_size > 1000)
    return [path.read_bytes() for path in found]


def _main(folder: Path) -> None:
    # Without types.
    preparing: Any = import_module("onnxruntime.quantization.shape_inference")
    magika = Magika()
    shutil.copyfile(magika.file, folder / FLOAT)
    prepared = folder / "prepared.onnx"
    preparing.quant_pre_process(str(folder / FLOAT), str(prepared), skip_symbolic_shape=True)
    _quantize(prepared, folder / SERVED, [magika.features(text) for text in texts()[:_CALIBRATION]])
    # Calibrated with empty files: nothing of what the activations are in service has been seen.
    _quantize(prepared, folder / NEXT, [magika.features(b"")] * _CALIBRATION)
    prepared.unlink()


class _Rows:
    """ONNX Runtime's ``CalibrationDataReader``: batches until there are no more."""

    def __init__(self, rows: list[NDArray[np.int32]]) -> None:
        self._left = iter(np.split(np.concatenate(rows), 4))

    def get_next(self) -> dict[str, NDArray[np.int32]] | None:
        """The next batch."""
        batch = next(self._left, None)
        return None if batch is None else {"bytes": batch}


def _quantize(source: Path, target: Path, rows: list[NDArray[np.int32]]) -> None:
    quantization: Any = import_module("onnxruntime.quantization")
    quantization.quantize_static(
        str(source),
        str(target),
        _Rows(rows),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        # Eight bits can saturate on CPUs without VNNI.
        reduce_range=True,
    )


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
