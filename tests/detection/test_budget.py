"""The promise is one for the process: levels add up to it however many models and outputs there are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_quantmon.detection.budget import SHARES, Budget
from otel_quantmon.detection.registry import KINDS


@settings(deadline=None)
@given(
    per_million=st.floats(0.01, 100),
    outputs=st.dictionaries(st.sampled_from([*SHARES, "of another's making"]), st.integers(0, 30)),
    rate=st.floats(0.001, 1.0),
)
def test_what_one_call_can_feed_stays_within_the_budget(
    per_million: float, outputs: dict[str, int], rate: float
) -> None:
    """The sum over all streams of a call of observations by level is at most the false alarms allowed for a call."""
    budget = Budget(per_million)
    spent = sum(
        rate / budget.level(kind, rate=rate, position=position)
        for kind, count in outputs.items()
        for position in range(count)
    )
    assert spent <= per_million * 1e-6 * (1 + 1e-9)


def test_every_kind_has_a_share() -> None:
    """A kind without one would get a hundredth, together with all others' own kinds."""
    assert set(SHARES) == set(KINDS)
    assert sum(SHARES.values()) <= 0.99 + 1e-9


def test_a_sole_stream_has_the_whole_share_of_its_kind() -> None:
    """A tenth of one alarm in 10^6 calls is a level of 10^7; sampled at 1% it is 10^5."""
    budget = Budget()
    assert budget.sole_level("latency_drift") == pytest.approx(1e7)
    assert budget.sole_level("relative_error", rate=0.01) == pytest.approx(1e5)
    assert budget.level("latency_drift") == pytest.approx(2e7)


def test_suspicion_comes_at_half_of_the_evidence() -> None:
    """In logarithms, and never at what chance does every few calls."""
    assert Budget.suspicion_level(1e8) == pytest.approx(1e4)
    assert Budget.suspicion_level(1e9, 1 / 3) == pytest.approx(1e3)
    assert Budget.suspicion_level(2.0) == 10.0


@pytest.mark.parametrize("per_million", [0.0, -1.0, float("nan"), 2e6])
def test_no_budget_is_refused(per_million: float) -> None:
    """Zero false alarms cannot be promised."""
    with pytest.raises(ValueError):
        Budget(per_million)
