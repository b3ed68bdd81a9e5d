"""From what was found to a likely cause and to what to do: rules that can be read, no more certain than they say."""

from __future__ import annotations

from typing import NamedTuple

from otel_quantmon.fidelity.inquiry import Inquiry
from otel_quantmon.semconv import AnomalyCause, AnomalyType

__all__ = ["OF_DATA", "Diagnosis", "diagnose"]

OF_DATA = frozenset(
    {
        "relative_error",
        "disagreement",
        "cosine",
        "output_distribution",
        "input_distribution",
        "clipping",
        "nonfinite",
    }
)
"""Types of anomaly that the data, the model or the machine may have brought about: an inquiry tells which."""

_OF_INPUTS = frozenset({"input_distribution", "clipping"})


class Diagnosis(NamedTuple):
    """What is likely, and what to do.

    Attributes:
        cause: Likely cause.
        reason: Finding that speaks for it; empty where the type of anomaly says it all.
        remedy: What to do.
    """

    cause: AnomalyCause
    reason: str
    remedy: str


_BY_TYPE: dict[str, Diagnosis] = {
    "model_changed": Diagnosis(
        "file",
        "",
        "compare the digest with the one that was released; record a new baseline if that was meant",
    ),
    "fallback": Diagnosis(
        "provider",
        "",
        "see that the libraries and the device of the provider are there, and load the model again",
    ),
    "memory_growth": Diagnosis(
        "application",
        "",
        "look for what keeps tensors or sessions alive, and restart the process before it runs out",
    ),
    "error_rate": Diagnosis(
        "application",
        "",
        "look at the type of the error and at the trace of the call; roll back what was released last",
    ),
}

_HOST = Diagnosis(
    "host",
    "several models at once",
    "look at the load, the clock rate and the memory of this host, or move its work to another",
)
_TIMES = Diagnosis(
    "unknown",
    "one model alone",
    "compare with other hosts of this model: is it this host, look at its load; is it all, at what was released last",
)
_MACHINE = (
    "load the model again; `quantmon certify` on this host names what its processor lacks and what helps"
)
_DATA = "look at what the model is fed: its source, scale, order of channels and normalization"
_UNKNOWN = "record a golden baseline (`quantmon baseline record`), whose replay tells data from machine"


def diagnose(kind: AnomalyType, models: int, inquiry: Inquiry | None, *, inputs_changed: bool) -> Diagnosis:
    """Return what is likely.

    Args:
        kind: Type of anomaly.
        models: Number of models that are concerned.
        inquiry: Findings about the model; None without.
        inputs_changed: True if an anomaly of the model's inputs is on.
    """
    if kind not in OF_DATA:
        return _BY_TYPE.get(kind) or (_HOST if models > 1 else _TIMES)
    as_recorded = None if inquiry is None else inquiry.as_recorded
    reproduced = None if inquiry is None or inquiry.entry is None else inquiry.entry.reproduced
    afresh = "the model's file, run afresh on the same inputs, gives"
    # The first that holds, the surest first.
    rules: tuple[tuple[bool, AnomalyCause, str, str], ...] = (
        (as_recorded is False, "machine", "the recorded inputs no longer give what they gave", _MACHINE),
        (reproduced is False, "machine", f"{afresh} something else", _MACHINE),
        (as_recorded is True, "data", "the recorded inputs still give what they gave", _DATA),
        (kind in _OF_INPUTS or inputs_changed, "data", "the inputs are not as they were", _DATA),
        (reproduced is True, "data", f"{afresh} the same", _DATA),
    )
    found = next((Diagnosis(cause, why, remedy) for holds, cause, why, remedy in rules if holds), None)
    return found or Diagnosis("unknown", "", _UNKNOWN)
