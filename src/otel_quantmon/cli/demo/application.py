"""The application of the demo: it says of what type files are, and knows nothing of OpenTelemetry.

``python -m otel_quantmon.cli.demo.application FOLDER``. After a healthy while there are three faults, one after
another, each until otel-quantmon has logged it, or until patience ends. Exit status: 0 all were logged, 1 not.
"""

from __future__ import annotations

import logging
import random
import shutil
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from otel_quantmon.cli.demo.magika import NEXT, SERVED, Magika, texts

# What baselines take: 1,000 calls for errors, 200 samples of data, and 100 comparisons with the float original.
_HEALTHY_CALLS, _HEALTHY_SECONDS = 1100, 20.0
# A fault is told some five seconds after it was found, together with whatever else has been found by then.
_LONGEST_FAULT = 45.0
# On an idle machine the model takes some 5 ms, so that this leaves half of a core to the float original.
_PAUSE = 0.005


class Told(logging.Handler):
    """Keeps what otel-quantmon logs, as any application's logging would show it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, and show it."""
        line = record.getMessage()
        self.lines.append(line)
        say(f"    otel-quantmon: {line}")


class Fault(NamedTuple):
    """A fault, and the anomalies that otel-quantmon has for it, of which one is enough."""

    what: str
    anomalies: tuple[str, ...]
    begin: Callable[[], None]
    end: Callable[[], None]


class Service:
    """Classifies files with the model that is deployed."""

    def __init__(self, folder: Path) -> None:
        self._magika = Magika()
        self._path = folder / SERVED
        self._good = (folder / SERVED).read_bytes()
        self._next = folder / NEXT
        self._texts = texts()
        self._random = random.Random(7)  # noqa: S311  picks files, hides nothing
        self.calls = self.failed = 0
        self.utf16 = self.wrong_type = False
        self.load()

    def load(self) -> None:
        """Load the model that is deployed."""
        # Without types.
        onnxruntime: Any = import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        # The other core is the float original's.
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(self._path), options, providers=["CPUExecutionProvider"]
        )

    def answer(self) -> None:
        """Answer one request."""
        content = self._random.choice(self._texts)
        if self.utf16:
            content = content[:8192].decode("utf-8", "replace").encode("utf-16")
        features: Any = self._magika.features(content)
        if self.wrong_type and self._random.random() < 0.1:
            features = features.astype("int64")
        self.calls += 1
        try:
            self._session.run(None, {"bytes": features})
        except Exception:  # noqa: BLE001  the runtime's own types have no common base that all of its versions have
            self.failed += 1
        time.sleep(_PAUSE)

    def deploy(self, *, good: bool) -> None:
        """Replace the model's file, and load it again."""
        scratch = self._path.with_suffix(".new")
        if good:
            scratch.write_bytes(self._good)
        else:
            shutil.copyfile(self._next, scratch)
        scratch.replace(self._path)
        self.load()


def say(line: str) -> None:
    """Write a line at once: somebody watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(folder: Path) -> int:
    """Serve, healthily and with each fault."""
    told = Told()
    logging.getLogger("otel_quantmon").addHandler(told)
    service = Service(folder)
    faults = (
        Fault(
            "a client sends int64 where the model wants int32: one request in ten fails",
            ("error_rate",),
            lambda: setattr(service, "wrong_type", True),
            lambda: setattr(service, "wrong_type", False),
        ),
        Fault(
            "a new version is deployed, which was quantized with empty files for calibration",
            # The reference is a process of low priority: where others want all processors, the outputs show it first.
            ("relative_error", "output_distribution"),
            lambda: service.deploy(good=False),
            lambda: service.deploy(good=True),
        ),
        Fault(
            "files arrive as UTF-16 where the model has learnt UTF-8",
            ("input_distribution",),
            lambda: setattr(service, "utf16", True),
            lambda: setattr(service, "utf16", False),
        ),
    )
    say(f"healthy: {_HEALTHY_CALLS:,} files or more, from which otel-quantmon learns what is usual")
    began = time.monotonic()
    while service.calls < _HEALTHY_CALLS or time.monotonic() - began < _HEALTHY_SECONDS:
        service.answer()
    caught = 0
    for number, fault in enumerate(faults, start=1):
        say(f"\nfault {number}: {fault.what}")
        caught += _watch(service, fault, told)
    say(f"\n{service.calls:,} calls, {service.failed} failed; {caught} of {len(faults)} faults were caught")
    return 0 if caught == len(faults) else 1


def _watch(service: Service, fault: Fault, told: Told) -> bool:
    began, before = time.monotonic(), service.calls
    known = len(told.lines)
    fault.begin()
    caught = False
    while not caught and time.monotonic() - began < _LONGEST_FAULT:
        service.answer()
        caught = any(
            f": {anomaly} is anomalous" in line for line in told.lines[known:] for anomaly in fault.anomalies
        )
    fault.end()
    seconds = time.monotonic() - began
    outcome = "caught" if caught else "not caught"
    say(f"    {outcome}: {seconds:.0f} s and {service.calls - before} calls after it began")
    return caught


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
