"""An ordinary application with an int8 model, and two faults that are switched on and off while it runs.

python faulty.py MODEL FAULT

It calls the model, which is `runtimes.models.until_told`, fifty times a second. Meanwhile the file FAULT says what is
wrong: ``nan`` for a NaN in each input, ``hang`` for calls that come to no end.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
file = Path(sys.argv[2])
print("ready", flush=True)
while True:
    fault = ""
    with contextlib.suppress(FileNotFoundError):
        fault = file.read_text()
    x = np.array([[np.nan if fault == "nan" else 0.5, 1.0, -1.0]], np.float32)
    # A run that is ended at its time limit is lost, and the application goes on.
    with contextlib.suppress(Exception):
        session.run(None, {"x": x, "told": np.array(fault != "hang", np.int64)})
    time.sleep(0.02)
