"""Windows and thresholds."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.fidelity.numerics.measures import measure
from otel_quantmon.fidelity.windows import (
    COSINE_THRESHOLD,
    MIN_BASELINE_SAMPLES,
    RELATIVE_ERROR_THRESHOLD,
    FidelitySummary,
    FidelityWindow,
    Statistic,
    Thresholds,
    Window,
    upper_limit,
)


@given(size=st.integers(1, 9), samples=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30))
def test_a_window_reports_its_last_samples(size, samples):
    """Last, mean and largest are those of the newest `size` samples."""
    window = Window(size)
    for sample in samples:
        window.add(sample)
    kept = samples[-size:]
    statistic = window.statistic()
    assert (statistic.last, statistic.maximum) == (kept[-1], max(kept))
    assert statistic.mean == pytest.approx(math.fsum(kept) / len(kept), rel=1e-12, abs=1e-6)


def test_nothing_that_is_not_finite_reaches_an_instrument():
    """NaN and Inf leave no trace, and the mean of the largest values does not overflow."""
    window = Window(4)
    window.add(math.nan)
    window.add(math.inf)
    assert window.statistic() is None
    for _ in range(3):
        window.add(sys.float_info.max)
    assert math.isfinite(window.statistic().mean)


def test_a_window_without_room_is_refused():
    """A size of zero would report nothing for ever."""
    with pytest.raises(ValueError, match="at least 1"):
        Window(0)


def test_an_outputs_window_holds_every_measure():
    """What was measured is what the gauges report; without classes there is no disagreement to report."""
    window = FidelityWindow(10)
    f = np.array([[3.0, 4.0]])
    measures = measure([(f * 1.1, f)])
    window.add(measures, measures.disagreement)
    summary = window.summary()
    assert summary.relative_error == Statistic(*[pytest.approx(0.1)] * 3)
    assert summary.sqnr.last == pytest.approx(20.0)
    assert summary.cosine_similarity.mean == pytest.approx(1.0)
    assert summary.max_abs_error.maximum == pytest.approx(0.4)
    assert summary.disagreement == Statistic(0.0, 0.0, 0.0)
    scalar = FidelityWindow(10)
    scalar.add(measure([(np.array(1.0), np.array(1.0))]), None)
    assert scalar.summary().disagreement is None


def test_labels_have_a_disagreement_and_no_other_measure():
    """Of labels the window holds the share that differs alone."""
    labels = FidelityWindow(10)
    labels.add(None, 0.25)
    assert labels.summary() == FidelitySummary(None, None, None, None, Statistic(0.25, 0.25, 0.25))


def test_fixed_thresholds_hold_only_until_there_is_a_baseline():
    """Too few samples are no baseline; enough of them replace both thresholds."""
    few = [0.1] * (MIN_BASELINE_SAMPLES - 1)
    assert Thresholds.of_baseline(few, few) == Thresholds(RELATIVE_ERROR_THRESHOLD, COSINE_THRESHOLD)
    own = Thresholds.of_baseline([0.1] * MIN_BASELINE_SAMPLES, [0.96] * MIN_BASELINE_SAMPLES)
    assert own.from_baseline
    assert own.relative_error == pytest.approx(0.15)
    assert own.cosine_similarity == pytest.approx(1 - 1.5 * 0.04)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(1e-9, 1.0))
def test_no_sample_of_the_baseline_is_over_its_own_limit(samples, floor):
    """The recorded data itself never raises an anomaly, and rounding alone never does."""
    assert upper_limit(samples, floor) >= max(*samples, floor)


def test_a_limit_follows_the_spread_and_not_one_outlier():
    """Six robust deviations over the median, unless a recorded sample is larger still."""
    samples = [1.0, 1.1, 0.9, 1.2, 0.8]
    assert upper_limit(samples, 0.0) == pytest.approx(1.0 + 6 * 1.4826 * 0.1)
    assert upper_limit([*samples, 5.0], 0.0) == 5.0
    with pytest.raises(ValueError, match="at least one sample"):
        upper_limit([], 0.0)
