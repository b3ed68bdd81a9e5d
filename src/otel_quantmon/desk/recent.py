"""Durations of the last seconds of each model, kept from one view to the next, so that each reads only what is new."""

from __future__ import annotations

import sqlite3

from otel_quantmon import semconv
from otel_quantmon.desk.histogram import Histogram, from_row

__all__ = ["SECONDS", "Recent"]

SECONDS = 40
"""For how long durations are kept here."""

_SECOND = 10**9


class Recent:
    """What has been read of one file. `read` brings it up to date, inside the snapshot of a view.

    Args:
        only: Id of the one model to read of; None for all.
    """

    def __init__(self, only: int | None = None) -> None:
        self._only = only
        self._read: int | None = None
        # By the id of the model: histograms by second, each with its end included, and times and counts of points.
        self._seconds: dict[int, dict[int, Histogram]] = {}
        self._counts: dict[int, list[tuple[int, int]]] = {}

    def read(self, database: sqlite3.Connection, now: int) -> None:
        """Read what was written since the last time, and forget what is too old at ``now``, in nanoseconds."""
        since = now - SECONDS * _SECOND
        (last,) = database.execute("SELECT max(id) FROM point").fetchone()
        # By time at first, since what came before may be much more than what is kept here; then what is new.
        first = self._read is None
        tables = "series CROSS JOIN point" if first else "point CROSS JOIN series"
        rows = database.execute(
            "SELECT point.time, point.count, point.sum, point.min, point.max, point.buckets, series.model, "  # noqa: S608  words of our own
            f"series.kind, series.bounds FROM {tables} ON point.series = series.id WHERE series.metric = :metric "
            f"AND {'point.time' if first else 'point.id'} > :after AND point.count > 0 AND series.model IS NOT NULL "
            "AND (:only IS NULL OR series.model = :only)",
            {
                "metric": semconv.METRIC_INFERENCE_DURATION.name,
                "after": since if first else self._read,
                "only": self._only,
            },
        )
        for row in rows:
            found = self._seconds.setdefault(row["model"], {})
            place = _place(row["time"])
            added = from_row(row, row["kind"], row["bounds"])
            found[place] = found[place] + added if place in found else added
            self._counts.setdefault(row["model"], []).append((row["time"], row["count"]))
        self._read = last or 0
        for model, found in self._seconds.items():
            self._seconds[model] = {
                place: values for place, values in found.items() if place > _place(now) - SECONDS
            }
        for model, counts in self._counts.items():
            self._counts[model] = [(time, count) for time, count in counts if time > since]

    def seconds(self, model: int, now: int) -> list[Histogram | None]:
        """Durations in each of the last `SECONDS` seconds, the newest last; None for one without a call."""
        found = self._seconds.get(model, {})
        last = _place(now)
        return [found.get(place) for place in range(last - SECONDS + 1, last + 1)]

    def calls(self, model: int, since: int) -> int:
        """Count the calls after a time."""
        return sum(count for time, count in self._counts.get(model, ()) if time > since)


def _place(time: int) -> int:
    return (time - 1) // _SECOND
