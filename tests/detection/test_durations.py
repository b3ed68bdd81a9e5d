"""Calls after pauses alike are compared with each other, and with no others."""

from __future__ import annotations

from collections import Counter

import pytest

from otel_quantmon.detection.durations import Calls, Pauses, Stalls, WaitingCalls

MS = 1_000_000


def _calls(pauses: list[int], before: int | None = 0) -> Calls:
    ends, end = list[int](), before or 0
    for pause in pauses:
        end += pause + MS
        ends.append(end)
    return Calls("1.1", before, ends, [MS] * len(ends))


def test_calls_are_told_apart_by_the_pause_before_them() -> None:
    """Those in an idle host from the others; each in its order, in seconds. A few milliseconds are no pause."""
    found = Pauses("1.1").split(_calls([0, MS // 2, 8 * MS, 0, 200 * MS]))
    assert [(of, len(ends)) for of, ends, _ in found] == [("1.1", 4), ("1.1 after 30 ms", 1)]
    assert found[0][1] == pytest.approx([0.001, 0.0025, 0.0115, 0.0125])
    assert found[0][2] == pytest.approx([0.001] * 4)


def test_the_pause_before_the_first_of_a_batch_is_that_since_the_last() -> None:
    """A batch may begin in the midst of a pause; of the very first call it is not known, and none is taken for it."""
    assert Pauses("1.1").split(_calls([50 * MS]))[0][0] == "1.1 after 30 ms"
    assert Pauses("1.1").split(_calls([50 * MS], before=None))[0][0] == "1.1"


def test_calls_that_overlap_have_no_pause() -> None:
    """Those of several threads end while others run."""
    calls = Calls("1.1", 0, [10 * MS, 11 * MS, 12 * MS], [10 * MS, 9 * MS, 5 * MS])
    assert [of for of, *_ in Pauses("1.1").split(calls)] == ["1.1"]


def test_the_calls_right_after_a_pause_are_cold_as_well() -> None:
    """Those that begin within 20 ms after a long one, also in the next batch; those after that are as ever."""
    pauses = Pauses("1.1")
    first = _calls([50 * MS, *[0] * 9])
    assert [(of, len(ends)) for of, ends, _ in pauses.split(first)] == [("1.1 after 30 ms", 10)]
    later = [first.ends[-1] + (i + 1) * MS for i in range(20)]
    found = pauses.split(Calls("1.1", first.ends[-1], later, [MS] * 20))
    assert [(of, len(ends)) for of, ends, _ in found] == [("1.1 after 30 ms", 10), ("1.1", 10)]


def test_calls_that_come_in_parts_have_no_pause_where_another_part_has_calls() -> None:
    """Of a call each 200 µs those with a span come after the others, and none of a second in ten batches is cold."""
    pauses, waiting, every = Pauses("1.1"), WaitingCalls(512), MS // 5
    for batch in range(10):
        # The last with a span ends long before the batch does.
        shown = range(batch * 500, batch * 500 + 400, 50)
        plain = [i for i in range(batch * 500, (batch + 1) * 500) if i not in shown]
        for part in (plain, shown):
            waiting.add("1.1", [(i + 1) * every for i in part], [every] * len(part))
        (calls,) = waiting.take()
        assert calls.ends == [(i + 1) * every for i in range(batch * 500, (batch + 1) * 500)]
        assert calls.before == (batch * 500 * every or None)
        assert [of for of, *_ in pauses.split(calls)] == ["1.1"]
        waiting.room = 512


def test_the_first_calls_of_all_parts_are_kept_in_a_row() -> None:
    """Where there are more than are ranked: a later part fills in what the first lacks, and adds nothing after it."""
    waiting = WaitingCalls(4)
    waiting.add("1.1", [10, 30, 40, 60, 70], [1, 3, 4, 6, 7])
    waiting.add("1.1", (20, 50, 80), (2, 5, 8))
    waiting.add("1.1", [90], [9])
    waiting.add("1.9", [10], [1])
    assert waiting.take() == [Calls("1.1", None, [10, 20, 30, 40], [1, 2, 3, 4])]
    waiting.room = 4
    # Of a part that comes late, too, the latest end is what the next one comes after.
    waiting.add("1.1", [85], [1])
    waiting.add("1.1", [95], [2])
    assert waiting.take() == [Calls("1.1", 90, [85, 95], [1, 2])]


def test_classes_divide_the_room() -> None:
    """What one leaves of its part the others have; each has its first calls, and none that come after a gap in them."""
    waiting = WaitingCalls(101)
    for first in (0, 100):
        for of, count in ("1.1", 100), ("1.9", 5), ("2.1", 60):
            waiting.add(of, range(first, first + count), [1] * count)
    taken = {calls.of: list(calls.ends) for calls in waiting.take()}
    assert taken == {"1.1": [*range(45)], "1.9": [*range(5), *range(100, 105)], "2.1": [*range(45)]}


def test_classes_take_turns_where_the_room_is_short() -> None:
    """Eight, always in the same order, and room for 25 calls: each comes to be ranked, some 16 in a row."""
    waiting, ranked, longest = WaitingCalls(25), Counter[str](), Counter[str]()
    for interval in range(160):
        for of in "abcdefgh":
            waiting.add(of, range(1000 * interval, 1000 * interval + 50), [1] * 50)
        taken = waiting.take()
        assert sum(len(calls.ends) for calls in taken) == 25
        for calls in taken:
            assert list(calls.ends) == [1000 * interval + i for i in range(len(calls.ends))]
            ranked[calls.of] += len(calls.ends)
            longest[calls.of] = max(longest[calls.of], len(calls.ends))
    assert set(longest.values()) == {16}
    assert min(ranked.values()) > 400
    assert waiting.share("a") == ranked["a"] / 8000


def test_a_seldom_class_does_not_wait_for_the_others() -> None:
    """One call beside a class that fills the room by itself is ranked in the interval in which it was made."""
    waiting = WaitingCalls(16)
    for _ in range(10):
        waiting.add("often", range(100), [1] * 100)
        waiting.take()
    waiting.add("often", range(100), [1] * 100)
    waiting.add("seldom", [50], [1])
    assert {calls.of: len(calls.ends) for calls in waiting.take()} == {"often": 15, "seldom": 1}


def test_short_calls_are_cold_after_a_short_pause() -> None:
    """Calls of 10 µs after one of two milliseconds, for five; when they become slow they stay in their class."""
    pauses, end = Pauses("1.1"), 0
    found: list[str] = []
    for pause, duration in [
        (0, 10_000),
        (2 * MS, 10_000),
        (0, 10_000),
        (0, 6 * MS),
        (0, 10_000),
        (40 * MS, 10_000),
    ]:
        before, end = end, end + pause + duration
        found += [of for of, *_ in pauses.split(Calls("1.1", before, [end], [duration]))]
    assert found == ["1.1", *["1.1 after 1 ms"] * 3, "1.1", "1.1 after 30 ms"]


def test_calls_that_are_slow_after_a_restart_are_of_the_class_that_they_were() -> None:
    """What there is a baseline of says whether calls were short, and not how long they are now."""
    slow = _calls([5 * MS] * 3, before=1)
    assert {of for of, *_ in Pauses("1.1", {"1.1", "1.1 after 1 ms"}).split(slow)} == {"1.1 after 1 ms"}
    short = Calls("1.1", 1, [5 * MS], [1000])
    assert {of for of, *_ in Pauses("1.1", {"1.1"}).split(short)} == {"1.1"}


def test_stalls_at_about_the_same_time_are_one() -> None:
    """What stops a process makes several short calls late: within 10 ms there is one stall among as many calls."""
    stalls = Stalls()
    assert stalls.single([1.0, 1.001, 1.002, 1.003, 1.02], [1, 2, 3]) == (5, [1])
    assert stalls.single([2.0, 2.02, 2.04], [0, 1, 2]) == (3, [0, 1, 2])
    assert stalls.single([2.045, 2.06], [0]) == (2, [])
    assert stalls.single([], []) == (0, [])
