"""What is found out about a model after one of its streams of data has changed: where the change comes from."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_quantmon.fidelity.reference.layers import Entry

__all__ = ["Inquiry"]


@dataclass(slots=True)
class Inquiry:
    """Findings about one model. Each is filled in on a worker, and all are read where the anomaly is reported.

    Attributes:
        begun: Seconds, by the clock of judgement.
        until: Seconds, by which what is not found is left out.
        open: Names of what is still being looked for.
        as_recorded: True if the recorded inputs still give the recorded outputs; None where there are none.
        entry: Layer at which the error of a call enters; None without a reference.
    """

    begun: float
    until: float
    open: set[str] = field(default_factory=set[str])
    as_recorded: bool | None = None
    entry: Entry | None = None

    def pending(self, now: float) -> bool:
        """Return True while it is worth to wait for more."""
        return bool(self.open) and now < self.until

    def replayed(self, as_recorded: bool | None) -> None:
        """Take what the recorded cases give now; None if they could not be replayed."""
        self.as_recorded = as_recorded
        self.open.discard("golden")

    def located(self, entry: Entry) -> None:
        """Take where the error of a call enters."""
        self.entry = entry
        self.open.discard("layer")
