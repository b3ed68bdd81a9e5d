"""What is read of the file of a run in several tests."""

from __future__ import annotations

import sqlite3

from otel_quantmon import semconv
from otel_quantmon.desk import queries
from otel_quantmon.desk.histogram import Histogram

DURATION = semconv.METRIC_INFERENCE_DURATION


def total(database: sqlite3.Connection) -> Histogram:
    """All durations of the only model."""
    (model,) = queries.models(database)
    return queries.distribution(database, DURATION, model.id)
