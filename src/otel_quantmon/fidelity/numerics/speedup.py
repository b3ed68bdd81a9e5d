"""By how much a quantized model is faster than its float original, from runs that are timed under equal conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

__all__ = ["FEWEST_ROUNDS", "SHORTEST", "rounds_within", "speedup", "time_in_turns"]

SHORTEST = 50e-6
"""Seconds of a run below which no speed-up is reported.

The call into the runtime, which is the same for both models, takes 4 to 5 µs (measured on a model of one small
operator). At 50 µs that is a tenth of the run, and pulls a speed-up as far towards 1; of shorter runs it is the larger
part, and the value would be that of the call. ``benchmarks/speedup.py`` shows both.
"""

FEWEST_ROUNDS = 4
"""Each order of the two models twice."""


def rounds_within(seconds: float, one: float, most: int) -> int:
    """How many rounds of ``one`` second each to time: an even number, so that both orders are equally frequent."""
    if one * most <= seconds:
        return most // 2 * 2
    return max(FEWEST_ROUNDS, int(seconds / one)) // 2 * 2


def time_in_turns(
    reference: Callable[[int], object],
    quantized: Callable[[int], object],
    clock: Callable[[], float],
    spend: float,
    *,
    most: int,
    proceed: Callable[[], bool] = lambda: True,
) -> tuple[list[float], list[float]]:
    """Time two models in rounds of one run each, after one run of each that does not count.

    Which of the two goes first changes with each round: what runs after the other finds the caches as that left them,
    and the first of two runs of one and the same model takes up to two thirds longer.

    Args:
        reference, quantized: One run, given the number of the round; -1 is the one that does not count.
        clock: Clock, in seconds.
        spend: Seconds for all rounds together, as far as the fewest rounds allow.
        most: Rounds, at least `FEWEST_ROUNDS`.
        proceed: A function that is asked before each round; no further one is begun after a no.

    Returns:
        Seconds of the runs of the reference and of the quantized model, as many of each.
    """
    began = clock()
    reference(-1)
    quantized(-1)
    first: tuple[list[float], list[float]] = [], []
    for number in range(rounds_within(spend, clock() - began, most)):
        if not proceed():
            break
        turn = [(reference, first[0]), (quantized, first[1])]
        for run, durations in turn if number % 2 == 0 else reversed(turn):
            before = clock()
            run(number)
            durations.append(clock() - before)
    return first


def speedup(reference: Sequence[float], quantized: Sequence[float]) -> float | None:
    """How many times as long the reference takes: the median, over pairs of rounds, of its time over the other's.

    Two rounds that follow one another hold both orders, and what else the machine does meanwhile slows down both
    models; so their ratio varies half as much as one of medians over all rounds does.

    Args:
        reference, quantized: Seconds as `time_in_turns` gives them, of any number of times one after another.

    Returns:
        None while there are fewer than `FEWEST_ROUNDS`, and where either median is below `SHORTEST`.
    """
    rounds = min(len(reference), len(quantized)) // 2 * 2
    if rounds < FEWEST_ROUNDS or min(median(reference), median(quantized)) < SHORTEST:
        return None
    return median(
        (reference[i] + reference[i + 1]) / (quantized[i] + quantized[i + 1]) for i in range(0, rounds, 2)
    )
