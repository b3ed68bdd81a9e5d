"""After an anomaly of data was entered: the recorded cases are replayed, and the layer is found where the error enters.

All of it runs on the workers and in the reference's process, within the time that a reference run may take, and once in
ten minutes for a model.
"""

from __future__ import annotations

from otel_quantmon.fidelity.inquiry import Inquiry
from otel_quantmon.fidelity.shadow import Shadow
from otel_quantmon.recording.diagnosis import OF_DATA
from otel_quantmon.recording.series import Series

__all__ = ["inquire"]

_BETWEEN = 600.0


def inquire(series: Series, kind: str, now: float, seconds: float) -> None:
    """Begin to find out where an anomaly comes from, unless that was done lately.

    Args:
        series: Series of the model.
        kind: Type of anomaly.
        now: Seconds.
        seconds: Seconds after which nothing more is waited for.
    """
    before = series.inquiry
    if kind not in OF_DATA or (before is not None and now - before.begun < _BETWEEN):
        return
    inquiry = series.inquiry = Inquiry(begun=now, until=now + seconds)
    if series.golden is not None:
        inquiry.open.add("golden")
        series.golden.replay_now(inquiry.replayed)
    shadow = series.comparer
    # A reference elsewhere has its own ways.
    if isinstance(shadow, Shadow):
        inquiry.open.add("layer")
        if not shadow.locate(inquiry.located):
            inquiry.open.discard("layer")
