"""Calls of models one after another, and their judgement."""

from __future__ import annotations

from collections.abc import Sequence

from otel_quantmon.detection.model_streams import Found, ModelStreams
from otel_quantmon.detection.monitor import Monitor


class Clock:
    """Calls one after another, and a judgement after each batch of them."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.at = 1_000_000_000

    def calls(
        self, streams: ModelStreams, seconds: Sequence[float], of: str = "1.1", *, gap: float = 0.02
    ) -> list[Found]:
        """Feed durations in batches of 100 calls, ``gap`` seconds apart; what was found."""
        told: list[Found] = []
        for first in range(0, len(seconds), 100):
            ends: list[int] = []
            batch = [int(one * 1e9) for one in seconds[first : first + 100]]
            for duration in batch:
                self.at += duration + int(gap * 1e9)
                ends.append(self.at)
            streams.durations(of, ends, batch)
            streams.ended(len(batch))
            told += self.judge()
        return told

    def judge(self) -> list[Found]:
        return self.monitor.judge(self.at * 1e-9)


def kinds(told: Sequence[Found]) -> list[tuple[str, str]]:
    return [(found.transition.what, found.transition.kind) for found in told]
