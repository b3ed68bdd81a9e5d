"""The numbers of one tensor show one change of a fleet, some of them sooner than others."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from otel_quantmon.detection.placement import Subject
from otel_quantmon.evaluator.fleet import state as fleet_state
from otel_quantmon.evaluator.fleet.findings import Finding, StreamName
from otel_quantmon.evaluator.fleet.group import HEARD
from otel_quantmon.evaluator.fleet.judge import Judge
from otel_quantmon.evaluator.fleet.state import FleetState, Sighting

MODEL = ("files", "onnxruntime", "qdq", "CPUExecutionProvider")
ENTROPY, MARGIN = (
    StreamName("output_distribution", "label", "entropy"),
    StreamName("output_distribution", "label", "margin"),
)


class Fleet:
    """Two hosts. A change shows in each entropy, and in a share of the margins."""

    def __init__(self, path: Path, seed: int) -> None:
        self.state = FleetState(path / f"{seed}.sqlite")
        self.judge = Judge(self.state, "w", 1.0)
        self.rng = random.Random(seed)
        self.sent = 0
        self.told: list[tuple[str, str, str, tuple[str, ...]]] = []

    def send(self, samples: int, *, entropy: tuple[bool, bool], margin: tuple[float, float]) -> None:
        """Let each host send samples, and judge them.

        Args:
            samples: Number of them.
            entropy: For each host, whether its entropy has changed.
            margin: For each host, the share of its margins that have.
        """
        for _ in range(samples // 4):
            sightings = []
            for host in (0, 1):
                for _ in range(4):
                    self.sent += 1
                    moved = self.rng.random() < margin[host]
                    findings = [
                        Finding(ENTROPY, self.rng.gauss(2.5 if entropy[host] else 0.3, 0.1)),
                        Finding(MARGIN, 0.2 if moved else self.rng.uniform(0.6, 1.0)),
                    ]
                    who = Subject(f"h{host}", "shop", "v1", "x86_64+avx2")
                    sightings.append(Sighting(str(self.sent), MODEL, who, findings))
            self.state.add(sightings)
        for number, news in self.judge.run():
            stream = news.stream
            self.told.append(
                (news.what, "" if stream is None else stream.number, news.place.scope, news.place.hosts)
            )
            self.judge.reported(number)

    def places(self) -> set[str]:
        """Where there is a change, as metrics say it."""
        return {place.scope for places in self.judge.standing.places.values() for place in places}


@pytest.mark.parametrize("seed", range(6))
def test_a_number_that_is_late_names_no_host_while_all_have_changed(seed: int, tmp_path: Path) -> None:
    """The data of both changes, which the margin of one host shows and that of the other does not yet: reported is that
    it is everywhere, and later that this is over. No host is named, with its machine as the cause: neither for the late
    number, nor because one host is seen to be back before the other.
    """
    fleet = Fleet(tmp_path, seed)
    fleet.send(160, entropy=(False, False), margin=(0.0, 0.0))
    assert fleet.told == []
    fleet.send(60, entropy=(True, True), margin=(0.6, 0.0))
    assert {one[2] for one in fleet.told} == {"everywhere"}
    assert fleet.places() == {"everywhere"}
    fleet.send(160, entropy=(False, False), margin=(0.0, 0.0))
    assert {one[2] for one in fleet.told} == {"everywhere"}
    assert fleet.places() == set()


def test_a_host_that_was_named_is_over_when_all_have_changed(tmp_path: Path) -> None:
    """First one host, which both numbers name; then all, as the entropy shows: the margin's host is over."""
    fleet = Fleet(tmp_path, 1)
    fleet.send(160, entropy=(False, False), margin=(0.0, 0.0))
    fleet.send(60, entropy=(True, False), margin=(0.6, 0.0))
    assert set(fleet.told) == {
        ("entered", "entropy", "host", ("h0",)),
        ("entered", "margin", "host", ("h0",)),
    }
    fleet.send(60, entropy=(True, True), margin=(0.6, 0.0))
    assert set(fleet.told[2:]) == {
        ("left", "entropy", "host", ("h0",)),
        ("entered", "entropy", "everywhere", ()),
        ("left", "margin", "host", ("h0",)),
    }
    assert fleet.places() == {"everywhere"}


def test_a_host_that_stays_where_the_other_is_back_is_named(tmp_path: Path) -> None:
    """Both have changed, and one is mended: the other one is named, by both of its numbers."""
    fleet = Fleet(tmp_path, 3)
    fleet.send(160, entropy=(False, False), margin=(0.0, 0.0))
    fleet.send(60, entropy=(True, True), margin=(0.9, 0.9))
    assert {one[2] for one in fleet.told} == {"everywhere"}
    known = len(fleet.told)
    fleet.send(160, entropy=(True, False), margin=(0.9, 0.0))
    assert {one for one in fleet.told[known:] if one[0] == "entered"} == {
        ("entered", "entropy", "host", ("h0",)),
        ("entered", "margin", "host", ("h0",)),
    }
    assert fleet.places() == {"host"}


def test_a_host_that_changes_long_after_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host does ten minutes after the data of all has changed is a change of its own."""
    fleet = Fleet(tmp_path, 2)
    fleet.send(160, entropy=(False, False), margin=(0.0, 0.0))
    fleet.send(60, entropy=(True, True), margin=(0.0, 0.0))
    assert set(fleet.told) == {("entered", "entropy", "everywhere", ())}
    now = fleet_state.time()
    monkeypatch.setattr(fleet_state, "time", lambda: now + HEARD + 1)
    fleet.send(60, entropy=(True, True), margin=(0.9, 0.0))
    assert fleet.told[1:] == [("entered", "margin", "host", ("h0",))]
    assert fleet.places() == {"everywhere", "host"}
