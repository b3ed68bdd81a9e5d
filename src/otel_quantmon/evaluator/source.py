"""What samples are taken from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from otel_quantmon.errors import CommandError

__all__ = ["Claimed", "EvaluatorError", "Source", "Verdict"]

Verdict = Literal["accept", "release", "reject"]
"""Of a claimed sample: it is done with, somebody else is to have it at once, or nobody can evaluate it."""


class EvaluatorError(CommandError):
    """Samples cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """One sample that is this worker's until it settles it, or until its lease ends.

    Attributes:
        data: Bytes as `otel_quantmon.fidelity.remote.record.encode` gives it, or anything else.
        name: Name by which the source calls it, for people.
    """

    data: bytes
    name: str


class Source(Protocol):
    """Gives each sample to one worker at a time, at least once until it is settled. For one thread."""

    @property
    def unreached(self) -> str | None:
        """What it has not reached so far, so that nothing is known of what waits there; None if it has."""
        ...

    def claim(self, most: int, seconds: float) -> list[Claimed]:
        """Return up to ``most`` samples; none after about ``seconds`` without any.

        Raises:
            EvaluatorError: It cannot be read at all.
        """
        ...

    def renew(self) -> None:
        """Keep what is claimed: work on it goes on."""
        ...

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str = "") -> None:
        """End a claim; ``reason`` goes with a sample that is rejected, to where a person finds both."""
        ...

    def close(self) -> None:
        """Let go of everything. What is claimed still is claimed again elsewhere when its lease has ended."""
        ...
