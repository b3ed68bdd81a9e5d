"""A model whose samples leave, and those that have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import real_models

from fidelity.logs import Logs
from otel_quantmon.fidelity.remote.record import SampleRecord, decode

NAME = real_models.magika_qdq().stem


def session() -> Any:
    """One of the quantized model."""
    return onnxruntime.InferenceSession(str(real_models.magika_qdq()), providers=["CPUExecutionProvider"])


def samples(directory: Path) -> list[SampleRecord]:
    """Those in a directory."""
    return [decode(path.read_bytes()) for path in sorted((directory / "new").iterdir())]


def events(logs: Logs) -> list[Any]:
    """The records of samples, as they were exported."""
    return [one for one in logs.records if _name(one) == "quantmon.sample"]


def _name(record: Any) -> str | None:
    return getattr(record, "event_name", None) or record.attributes.get("event.name")
