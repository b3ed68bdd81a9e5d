"""One answer for a fleet: silent while all are well, and right about where it is not; whatever is killed meanwhile."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifecycle.programs import environment

from otel_quantmon.detection.placement import Place, Subject
from otel_quantmon.evaluator.fleet.findings import Finding, StreamName
from otel_quantmon.evaluator.fleet.golden import disagreements
from otel_quantmon.evaluator.fleet.judge import FleetNews, Judge
from otel_quantmon.evaluator.fleet.pool import Pool
from otel_quantmon.evaluator.fleet.state import FleetState, GoldenCase, Sighting
from otel_quantmon.evaluator.source import EvaluatorError

MODEL = ("ocr", "onnxruntime", "qdq", "CPUExecutionProvider")
ERROR, INPUT = StreamName("relative_error", "scores", ""), StreamName("input_distribution", "image", "mean")
EVERY = StreamName("nonfinite", "", "")
VNNI, PLAIN = "x86_64+avx512_vnni+avx2", "x86_64+avx2"

Fault = Callable[[int, int], float]

numbers = st.lists(st.floats(-1e9, 1e9, width=32) | st.floats(-1e-3, 1e-3), max_size=40)


@given(st.lists(numbers, min_size=1, max_size=4))
def test_pools_merge_to_the_pool_of_all(parts: list[list[float]]) -> None:
    """In any order, in pairs or one by one: the same counts as of all numbers in one, and through JSON too."""
    whole = Pool(value for part in parts for value in part)

    def merged(order: Iterable[list[float]]) -> Pool:
        pool = Pool()
        for part in order:
            pool.merge(Pool.from_wire(json.loads(json.dumps(Pool(part).to_wire()))))
        return pool

    left, right = Pool(), Pool()
    for number, part in enumerate(parts):
        (left if number % 2 else right).merge(Pool(part))
    left.merge(right)
    for pool in (merged(parts), merged(reversed(parts)), left):
        coarse = whole.at_scale_of(pool)
        assert pool.at_scale_of(whole).counts() == coarse.counts()
        assert pool.size == whole.size == sum(count for _, count in pool.counts())


class Traffic:
    """Samples of hosts, each with errors and data of its own."""

    def __init__(self, hosts: int, seed: int = 0) -> None:
        self.hosts = hosts
        self.rng = random.Random(seed)
        self.sent = 0

    def send(
        self,
        state: FleetState,
        rounds: int,
        fault: Fault = lambda _h, _r: 1.0,
        version: Callable[[int], str] = lambda _: "v1",
    ) -> None:
        """Add ``rounds`` batches of 8 samples; a fault is a factor by host and round."""
        for number in range(rounds):
            sightings = []
            for _ in range(8):
                host, self.sent = self.rng.randrange(self.hosts), self.sent + 1
                factor = fault(host, number)
                findings = [
                    Finding(ERROR, self.rng.lognormvariate(-4 + 0.3 * (host % 3), 0.4) * factor),
                    Finding(INPUT, self.rng.gauss(2.0 - host % 2, 0.3) * factor),
                    Finding(EVERY, 0.0),
                ]
                who = Subject(f"h{host}", "shop", version(host), PLAIN if host % 2 == 0 else VNNI)
                sightings.append(Sighting(str(self.sent), MODEL, who, findings))
            state.add(sightings)


def judged(judge: Judge) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """What is to be reported, and is then."""
    found = []
    for number, news in judge.run():
        kind = "" if news.stream is None else news.stream.kind
        found.append((news.what, kind, news.place.scope, news.place.hosts))
        judge.reported(number)
    return found


@pytest.fixture
def state(tmp_path: Path) -> FleetState:
    return FleetState(tmp_path / "fleet.sqlite")


@pytest.mark.parametrize(("hosts", "seed"), [(1, 0), (2, 1), (2, 2), (12, 3)])
def test_a_healthy_fleet_is_silent(hosts: int, seed: int, state: FleetState) -> None:
    """Hosts that differ from each other, and of which now these send more and now those, are no change."""
    traffic, judge = Traffic(hosts, seed), Judge(state, "w", 1.0)
    traffic.send(state, 60 * max(2, hosts // 2))
    for busy in range(4):
        quiet = Traffic(max(1, hosts // 2) if busy % 2 else hosts, seed + busy)
        quiet.sent = 10**6 * (busy + 1)
        quiet.send(state, 40)
    assert judged(judge) == []
    assert {scope for places in judge.standing.places.values() for scope in places} == set()
    assert judge.standing.hosts == {MODEL: hosts}


def test_one_host_then_all_then_one_then_none(state: FleetState) -> None:
    """A fault of one of two is that host's, of both it is the data's, and its end is seen, each time."""
    traffic, judge = Traffic(2, 4), Judge(state, "w", 1.0)
    traffic.send(state, 60)
    assert judged(judge) == []
    for fault, scope, hosts in (
        (lambda host, _: 4.0 if host == 0 else 1.0, "host", ("h0",)),
        (lambda _host, _: 4.0, "everywhere", ()),
        (lambda host, _: 4.0 if host == 1 else 1.0, "host", ("h1",)),
        (lambda _host, _: 1.0, None, ()),
    ):
        traffic.send(state, 60, fault)
        said = judged(judge)
        on = [places for places in judge.standing.places.values() if places]
        if scope is None:
            assert on == []
            continue
        place = Place(scope, hosts, lacking=("avx512_vnni",) if hosts == ("h0",) else ())  # type: ignore[arg-type]
        assert on == [(place,), (place,)], said
        entered = [one for one in said if one[0] == "entered"]
        assert entered[-1][2:] == (scope, hosts)


def test_one_host_of_many_and_what_it_lacks(state: FleetState) -> None:
    """Named alone, while eleven others go on as they were."""
    traffic, judge = Traffic(12, 5), Judge(state, "w", 1.0)
    traffic.send(state, 200)
    traffic.send(state, 120, lambda host, _: 3.0 if host == 6 else 1.0)
    assert set(judged(judge)) == {
        ("entered", "relative_error", "host", ("h6",)),
        ("entered", "input_distribution", "host", ("h6",)),
    }


def test_a_change_of_all_is_found_before_any_host_could_tell(state: FleetState) -> None:
    """With a few samples of each of many hosts: the evidence of all is one."""
    traffic, judge = Traffic(12, 6), Judge(state, "w", 1.0)
    traffic.send(state, 200)
    assert judged(judge) == []
    traffic.send(state, 12, lambda _host, _: 1.8)
    assert ("entered", "relative_error", "everywhere", ()) in judged(judge)


def test_the_version_that_moved_is_named(state: FleetState) -> None:
    """A release on some hosts: what they have in common is the version, and one host is not named before the others."""
    traffic, judge = Traffic(9, 7), Judge(state, "w", 1.0)
    traffic.send(state, 200)
    assert judged(judge) == []
    traffic.send(
        state, 120, lambda host, _: 3.0 if host < 3 else 1.0, lambda host: "v2" if host < 3 else "v1"
    )
    said = judged(judge)
    assert {one[:3] for one in said} == {
        ("entered", "relative_error", "version"),
        ("entered", "input_distribution", "version"),
    }
    assert {place.versions for places in judge.standing.places.values() for place in places} == {("v2",)}


def dump(path: Path) -> list[tuple[Any, ...]]:
    """All that the judge keeps."""
    database = sqlite3.connect(path)
    try:
        groups = database.execute("SELECT name, state FROM grp ORDER BY name").fetchall()
        streams = database.execute(
            "SELECT grp, subject, last, state FROM stream ORDER BY grp, subject"
        ).fetchall()
        news = database.execute("SELECT number, body FROM news ORDER BY number").fetchall()
        return [*groups, *streams, *news, *database.execute("SELECT count(*) FROM batch")]
    finally:
        database.close()


PROGRAM = """
import sys
from pathlib import Path
from otel_quantmon.evaluator.fleet import judge
from otel_quantmon.evaluator.fleet.state import FleetState
judge._AT_ONCE = 3
print("begin", flush=True)
judge.Judge(FleetState(Path(sys.argv[1])), "w", 1.0).run()
"""


def test_a_judge_that_is_killed_goes_on_where_it_was(state: FleetState, tmp_path: Path) -> None:
    """Real processes, each killed in the middle, until one comes to the end: state and news are those of one life."""
    traffic = Traffic(3, 9)
    traffic.send(state, 80)
    traffic.send(state, 40, lambda host, _: 4.0 if host == 0 else 1.0)
    state.close()
    path, killed = tmp_path / "fleet.sqlite", tmp_path / "killed.sqlite"
    shutil.copy(path, killed)
    command = [sys.executable, "-c", PROGRAM]
    subprocess.run([*command, str(path)], check=True, env=environment(), stdout=subprocess.DEVNULL)

    def left() -> int:
        database = sqlite3.connect(killed, timeout=60)
        try:
            return int(database.execute("SELECT count(*) FROM batch").fetchone()[0])
        finally:
            database.close()

    lives = 0
    while (before := left()) and lives < 4:
        lives += 1
        process = subprocess.Popen([*command, str(killed)], env=environment(), stdout=subprocess.DEVNULL)
        while process.poll() is None and left() > before - 40:
            time.sleep(0.001)
        process.kill()
        process.wait()
    subprocess.run([*command, str(killed)], check=True, env=environment(), stdout=subprocess.DEVNULL)
    assert lives > 1
    assert dump(killed) == dump(path)
    assert dump(path)[-1] == (0,)


def test_a_judge_whose_transaction_fails_takes_nothing(
    state: FleetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had in memory of the batches is let go of, and the next turn takes them once."""
    traffic, judge = Traffic(2, 10), Judge(state, "w", 1.0)
    traffic.send(state, 30)
    with monkeypatch.context() as broken:
        broken.setattr(FleetState, "judged", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            judge.run()
    judge.run()
    sizes = [
        one["further"]["plus"]["count"]
        for key in state.groups()
        if json.loads(key)[1] == list(EVERY)
        for who in state.heard(key, 0.0)
        if (one := state.stream(key, who)) is not None
    ]
    assert sum(sizes) == traffic.sent


def test_a_sample_counts_once(state: FleetState) -> None:
    """However often it is evaluated, by whomever."""
    one = Sighting("a", MODEL, Subject("h", "s", "v", PLAIN), [Finding(EVERY, 0.0)])
    state.add([one, one])
    state.add([one])
    (batch,) = state.batches(10)
    assert batch.pools[EVERY].size == 1


def test_names_that_are_no_utf8_stop_nobody(state: FleetState) -> None:
    """A lone surrogate in the name of a host or service is replaced, also in a batch that an older release wrote."""
    judge, odd = Judge(state, "w", 1.0), Subject("h\ud800", "caf\udce9", "v", PLAIN)
    state.add([Sighting("a", MODEL, odd, [Finding(EVERY, 0.0)])])
    state.add([Sighting("b", MODEL, odd, golden=("i", "o", 0.1))])
    old = {"time": time.time(), "model": MODEL, "subject": ["i\ud800", "s", "v", PLAIN]}
    old["pools"] = [[*EVERY, Pool([0.0]).to_wire()]]
    state._database.execute("INSERT INTO batch (body) VALUES (?)", (json.dumps(old),))
    judge.run()
    assert state.batches(10) == []
    assert judge.standing.hosts == {MODEL: 2}
    assert [one.host for one in state.golden(MODEL)] == ["h?"]


def test_one_worker_judges_at_a_time(state: FleetState, tmp_path: Path) -> None:
    """Another does nothing while it does, and goes on when it has left."""
    other = Judge(FleetState(tmp_path / "fleet.sqlite"), "other", 1.0)
    first, traffic = Judge(state, "first", 1.0), Traffic(2, 11)
    traffic.send(state, 2)
    first.run()
    traffic.send(state, 2)
    assert other.run() == []
    assert other.standing.hosts == {}
    assert len(state.batches(100)) > 0
    first.leave()
    other.run()
    assert state.batches(100) == []
    assert other.standing.hosts == {MODEL: 2}
    assert first.run() == []


def test_a_file_of_another_version_is_told(tmp_path: Path) -> None:
    """It is not touched."""
    path = tmp_path / "fleet.sqlite"
    state = FleetState(path)
    state.set_value("version", "9")
    state.close()
    with pytest.raises(EvaluatorError, match="of version 9"):
        FleetState(path)


def case(
    host: str, output: str, error: float, isa: str = VNNI, version: str = "v", given: str = "i"
) -> GoldenCase:
    return GoldenCase(version, given, host, isa, output, error)


def test_hosts_that_disagree_on_golden_inputs() -> None:
    """Those that are not as most, with how much farther they are from float and what they lack; versions apart."""
    cases = [case(f"h{number}", "right", 0.01) for number in range(3)]
    cases += [
        case("odd", "wrong", 0.04, PLAIN),
        case("round", "nearly", 0.010001),
        case("new", "x", 0.5, version="w"),
    ]
    (found,) = disagreements(cases)
    assert (found.host, found.version, found.lacking) == ("odd", "v", ("avx512_vnni",))
    assert found.ratio == pytest.approx(4.0)
    # Of two, the one that is nearer to float is right.
    (found,) = disagreements([case("a", "x", 0.3, PLAIN), case("b", "y", 0.01)])
    assert (found.host, found.lacking) == ("a", ("avx512_vnni",))
    assert disagreements([case("a", "x", 0.3)]) == []


def replayed(state: FleetState, number: int, *hosts: tuple[str, str, str]) -> None:
    """Have hosts replay their golden case: each with its version, and what comes out."""
    for host, version, output in hosts:
        who = Subject(host, "s", version, VNNI)
        golden = ("i", output, 0.2 if output == "wrong" else 0.01)
        state.add([Sighting(f"{number} {host} {version}", MODEL, who, golden=golden)])


def test_a_host_with_a_new_file_is_judged_by_that(state: FleetState) -> None:
    """Once it has replayed it again, and has not been heard with the old one: what it made with that is forgotten."""
    judge = Judge(state, "w", 1.0)
    replayed(state, 0, ("a", "v", "right"), ("b", "v", "right"), ("c", "v", "wrong"))
    judge.run()
    assert [one.host for one in judge.standing.disagreements[MODEL]] == ["c"]
    for number in (1, 2):
        replayed(state, number, ("a", "v", "right"), ("b", "v", "right"), ("c", "w", "right"))
    judge.run()
    assert judge.standing.disagreements[MODEL] == ()


def test_two_versions_on_one_host_are_both_judged(state: FleetState) -> None:
    """As of two services of its own: each replays its cases, and neither takes the other's place."""
    judge = Judge(state, "w", 1.0)
    for number in range(3):
        replayed(state, number, *((host, "w", "right") for host in "abc"))
        replayed(state, number, ("a", "v", "right"), ("b", "v", "right"), ("c", "v", "wrong"))
        judge.run()
        assert [one.host for one in judge.standing.disagreements[MODEL]] == ["c"]


def test_disagreement_is_news_once(state: FleetState) -> None:
    """When a host begins to, and not at each replay."""
    judge = Judge(state, "w", 1.0)
    for replay in range(2):
        for number, (host, isa) in enumerate((("a", VNNI), ("b", VNNI), ("c", PLAIN))):
            golden = ("i", "wrong" if host == "c" else "right", 0.2 if host == "c" else 0.01)
            who = Subject(host, "s", "v", isa)
            state.add([Sighting(f"{replay}{number}", MODEL, who, golden=golden)])
        found = judge.run()
        if replay == 0:
            ((number, news),) = found
            assert isinstance(news, FleetNews)
            assert (news.what, news.place) == ("disagree", Place("host", ("c",), lacking=("avx512_vnni",)))
            judge.reported(number)
        else:
            assert found == []
    (one,) = judge.standing.disagreements[MODEL]
    assert one.host == "c"
