"""Takes the pictures of the page in ``docs/pictures/``: of a real run, in a real browser.

    apt-get install chromium chromium-driver
    pip install ".[demo,cli,page]" --group page pillow
    PYTHONPATH=tests:examples/zero-code python -m desk.page_pictures docs/pictures    # a minute and a half

The run is Google's file-type classifier, quantized here to int8, with its float original as reference. It is slowed
down by other work from the middle on, given input that is no file after that, and asked a few things that fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 80
MODEL = "#/model/1"


def application() -> None:
    """What is observed: requests, each with an inference and some work around it."""
    import numpy as np
    import onnxruntime
    from magika_int8 import features, int8_model, standard_library
    from opentelemetry import trace

    cores = sorted(os.sched_getaffinity(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    classify = onnxruntime.InferenceSession(str(int8_model()), options, providers=["CPUExecutionProvider"])
    tracer = trace.get_tracer("application")
    files = standard_library(32)
    noise = np.random.default_rng(5).integers(0, 256, (100, 2048), dtype=np.int32)
    began = time.monotonic()
    number = 0
    burning = False
    while (now := time.monotonic() - began) < SECONDS:
        if now > SECONDS * 0.55 and not burning:
            burning = True
            # Four processes that want the one core which is left for this one.
            os.sched_setaffinity(0, cores[:1])
            burner = (
                f"import time; end = time.monotonic() + {SECONDS * 0.2}\nwhile time.monotonic() < end: pass"
            )
            for _ in range(4):
                subprocess.Popen([sys.executable, "-S", "-E", "-c", burner], env={})
        number += 1
        with tracer.start_as_current_span("POST /classify"):
            with tracer.start_as_current_span("read"):
                row = features(files[number % 32].read_bytes())
                if now > SECONDS * 0.8:
                    row = noise[number % 100]
            with contextlib.suppress(Exception):
                classify.run(
                    None, {"bytes": row[None] if number % 900 else row[None, :10].astype(np.float32)}
                )
            with tracer.start_as_current_span("answer"):
                hashlib.pbkdf2_hmac("sha256", row.tobytes(), b"", 500)


def main(folder: Path) -> None:
    """Run, and take the pictures."""
    from magika_int8 import int8_model

    from desk.browser.chromium import Browser
    from otel_quantmon.desk.page import Page

    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch, "run.db")
        original = Path(scratch, "magika.onnx")
        original.symlink_to(_float_model())
        run = [sys.executable, "-m", "otel_quantmon.cli", "run", "--no-view", "--db", str(database)]
        Path(scratch, "app.py").write_text("from desk.page_pictures import application\napplication()\n")
        told = [f"--reference={int8_model().stem}={original}", "--", "python", "app.py"]
        # Long enough that the reference is asked often; of a short run one wants to see more than 1%.
        settings = {"QUANTMON_REFERENCE_BUDGET": "0.1", "OTEL_SERVICE_NAME": "classifier"}
        paths = [str(Path(path).resolve()) for path in os.environ["PYTHONPATH"].split(os.pathsep)]
        folders = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        subprocess.run([*run, *told], check=True, cwd=scratch, env={**os.environ, **settings, **folders})
        page = Page(database)
        page.start()
        try:
            _take(page.address, Path(scratch), folder, Browser)
        finally:
            page.stop()


def _float_model() -> Path:
    from real_models import magika_float

    return magika_float()


def _take(address: str, scratch: Path, folder: Path, make: type) -> None:
    import json
    import urllib.request

    with urllib.request.urlopen(f"{address}/api/models/1") as answer:
        model = json.load(answer)
    worst = (model["failed"] or model["wrong"] or model["slow"])[0]
    inference = f"#/inference/{worst['trace_id']}/{worst['span_id']}"
    for name, language, size, scheme, view in (
        ("page-model", "en", (1200, 1130), "light", MODEL),
        ("page-model-dark", "en", (1200, 1130), "dark", MODEL),
        ("page-model-zh", "zh-CN", (1200, 1130), "light", MODEL),
        ("page-inference", "en", (1200, 640), "light", inference),
        ("page-phone", "zh-CN", (390, 844), "dark", MODEL),
    ):
        browser = make(scratch / name, language, size)
        try:
            told = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", told)
            browser.open(f"{address}/", view)
            file = folder / f"{name}.png"
            browser.driver.save_screenshot(str(file))
        finally:
            browser.driver.quit()
        _shrink(file)


def _shrink(file: Path) -> None:
    """A palette is all that a page needs, and a third of the bytes."""
    from PIL import Image

    with Image.open(file) as picture:
        small = picture.convert("RGB").quantize(256)
    small.save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
