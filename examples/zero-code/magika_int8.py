"""An int8 model to try things with: Google's file-type classifier magika, quantized on this machine.

The wheel of ``magika`` carries the float32 model. It is quantized once, statically, with ONNX Runtime's own tool
and real files for calibration, and kept in the user's cache folder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_spec = importlib.util.find_spec("magika")
if _spec is None or _spec.origin is None:
    sys.exit("this example needs the model that magika carries: pip install magika onnx onnxruntime")
_FLOAT_MODEL = Path(_spec.origin).parent / "models" / "standard_v3_3" / "model.onnx"
_CONFIG = json.loads(_FLOAT_MODEL.with_name("config.min.json").read_text())

LABELS: tuple[str, ...] = tuple(_CONFIG["target_labels_space"])
"""What the model's 214 outputs stand for."""


def features(content: bytes) -> NDArray[np.int32]:
    """What the model reads of a file: its first and last 1024 bytes, padded; int32 (2048,)."""
    row = np.full(_CONFIG["beg_size"] + _CONFIG["end_size"], _CONFIG["padding_token"], dtype=np.int32)
    first = content[: _CONFIG["block_size"]].lstrip()[: _CONFIG["beg_size"]]
    last = content[-_CONFIG["block_size"] :].rstrip()[-_CONFIG["end_size"] :]
    row[: len(first)] = np.frombuffer(first, np.uint8)
    row[len(row) - len(last) :] = np.frombuffer(last, np.uint8)
    return row


def standard_library(count: int) -> list[Path]:
    """The first ``count`` sources of Python's own library: real files that every machine has."""
    return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:count]


def int8_model() -> Path:
    """The quantized model's file; made at the first call, which takes a few seconds."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    tools = "-".join(importlib.metadata.version(name) for name in ("magika", "onnxruntime"))
    target = Path(cache) / "otel-quantmon-examples" / tools / "magika_int8.onnx"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        print("quantizing magika to int8, once ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            # In a process of its own: the calibration's runs and memory are no part of the application.
            subprocess.run([sys.executable, "-E", __file__, scratch], check=True)
            # Complete or not at all, should two processes come here at once.
            (Path(scratch) / "int8.onnx").replace(target)
    return target


def _quantize(folder: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class RealFiles(CalibrationDataReader):
        def __init__(self) -> None:
            rows = np.stack([features(path.read_bytes()) for path in standard_library(32)])
            self._batches = iter(np.split(rows, 4))

        def get_next(self) -> dict[str, NDArray[np.int32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"bytes": batch}

    quant_pre_process(str(_FLOAT_MODEL), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(folder / "prepared.onnx"),
        str(folder / "int8.onnx"),
        RealFiles(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # Eight bits can saturate on CPUs without VNNI.
        reduce_range=True,
    )


if __name__ == "__main__":
    _quantize(Path(sys.argv[1]))
