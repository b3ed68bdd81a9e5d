"""What holds for every detector that is registered, and for the room as a whole."""

from __future__ import annotations

import ast
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import otel_quantmon.detection
from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.detector import Detector
from otel_quantmon.detection.registry import KINDS

LEVEL = 1e6
ROOM = Path(otel_quantmon.detection.__path__[0])


class Example(NamedTuple):
    """The state of a baseline, what a stream is like when it is well, and after a change, of either sign."""

    state: dict[str, Any]
    well: Callable[[random.Random], Any]
    changed: tuple[Callable[[random.Random], Any], ...]


_RANDOM = random.Random(1)
_NORMAL = Baseline([_RANDOM.gauss(10, 1) for _ in range(1000)]).state()

EXAMPLES: dict[str, Example] = {
    "value": Example(
        _NORMAL, lambda r: r.gauss(10, 1), (lambda r: r.gauss(20, 1), lambda r: r.gauss(1, 0.1))
    ),
    "event": Example({"events": 0, "trials": 1000}, lambda _: 0.0, (lambda r: float(r.random() < 0.3),)),
    "sketch": Example(
        {"mean": _NORMAL, "spread": _NORMAL},
        lambda r: {"mean": r.gauss(10, 1), "spread": r.gauss(10, 1)},
        (lambda r: {"mean": r.gauss(10, 1), "spread": r.gauss(20, 1)},),
    ),
    "growth": Example(_NORMAL, lambda r: r.gauss(10, 1), (lambda r: r.gauss(10_000, 100),)),
    "fact": Example({}, lambda _: 0.0, (lambda _: 1.0,)),
}
NOT_FINITE: dict[str, Any] = {"sketch": {"mean": math.nan, "other": math.inf}}


@pytest.fixture(params=KINDS)
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[KINDS[request.param].observation]


@pytest.fixture
def make(request: pytest.FixtureRequest, example: Example) -> Callable[[], Detector[Any]]:
    kind = KINDS[request.node.callspec.params["example"]]
    return lambda: kind.make(json.loads(json.dumps(example.state)), LEVEL, 7)


def _find(detector: Detector[Any], example: Example) -> Callable[[random.Random], Any]:
    """Feed a change that it finds: one of the signs."""
    for changed in example.changed:
        detector.reset()
        rng = random.Random(2)
        if detector.update_many([changed(rng) for _ in range(500)])[1] is not None:
            return changed
    raise AssertionError("no change was found")


def test_it_is_silent_and_unsuspicious_on_a_stream_without_a_change(make: Any, example: Example) -> None:
    """3,000 observations like those of the baseline."""
    detector, rng = make(), random.Random(3)
    assert detector.update_many([example.well(rng) for _ in range(3000)]) == (3000, None)
    assert 0.0 <= detector.suspicion < LEVEL


def test_it_finds_a_change_says_all_and_finds_the_way_back(make: Any, example: Example) -> None:
    """Enter, stay, leave, and enter again: the whole life of an anomaly."""
    detector = make()
    changed = _find(detector, example)
    for _ in range(2):
        detector.reset()
        rng = random.Random(4)
        values = [example.well(rng) for _ in range(200)] + [changed(rng) for _ in range(500)]
        count, judgement = detector.update_many(values)
        assert judgement is not None
        assert 200 < count <= 700
        assert not judgement.returned
        assert judgement.evidence is None or judgement.evidence >= LEVEL / 500
        assert judgement.observations >= 1
        assert math.isfinite(judgement.value)
        assert math.isfinite(judgement.baseline)
        assert judgement.direction == ("up" if judgement.value > judgement.baseline else "down")
        detector.reverse()
        assert detector.update_many([changed(rng) for _ in range(300)])[1] is None
        judgement = detector.update_many([example.well(rng) for _ in range(20_000)])[1]
        assert judgement is not None
        assert judgement.returned


def test_one_by_one_is_the_same_as_all_at_once(make: Any, example: Example) -> None:
    """And a batch stops behind the observation that decides, so that the rest can be judged as what follows it."""
    changed = _find(make(), example)
    one, other, rng = make(), make(), random.Random(5)
    values = [example.well(rng) for _ in range(50)] + [changed(rng) for _ in range(500)]
    count, judgement = one.update_many(values)
    told = [other.update(value) for value in values[:count]]
    assert told == [None] * (count - 1) + [judgement]
    assert one.update_many(values[:count], count) == (count, None)


def test_reset_forgets_all_but_the_baseline(make: Any, example: Example) -> None:
    """After a change it is found again as if it had never been seen, unless it was the first ever and a fact."""
    detector = make()
    changed = _find(detector, example)
    detector.reset()
    fresh = make()
    assert detector.suspicion == fresh.suspicion
    assert detector.state() == fresh.state() == json.loads(json.dumps(example.state))
    rng = random.Random(6)
    assert detector.update_many([changed(rng) for _ in range(500)])[1] is not None


def test_what_is_not_finite_is_passed_over(
    make: Any, example: Example, request: pytest.FixtureRequest
) -> None:
    """In either phase: neither an error nor evidence."""
    observation = KINDS[request.node.callspec.params["example"]].observation
    spoilt = [NOT_FINITE[observation]] if observation in NOT_FINITE else [math.nan, math.inf, -math.inf]
    detector = make()
    before = detector.suspicion
    assert detector.update_many(spoilt * 10)[1] is None
    assert detector.suspicion == before
    _find(detector, example)
    detector.reverse()
    assert detector.update_many(spoilt * 10)[1] is None


def test_a_state_of_nonsense_is_refused(request: pytest.FixtureRequest, example: Example) -> None:
    """ValueError, for a file that was cut or edited: the stream learns a baseline anew."""
    kind = KINDS[request.node.callspec.params["example"]]
    for state in ({}, *(dict.fromkeys(example.state, value) for value in (None, -1, 10**400))):
        if example.state:
            with pytest.raises(ValueError):
                kind.make(state, LEVEL, 0)


def test_the_room_imports_the_standard_library_and_itself() -> None:
    """No runtime, no OpenTelemetry, no numpy, and nothing of the rooms above it; of those for all only the guard."""
    for file in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name.startswith("otel_quantmon.detection") or name == "otel_quantmon.guard"
                assert own or name.split(".", 1)[0] in sys.stdlib_module_names, f"{file.name} imports {name}"
