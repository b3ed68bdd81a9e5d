"""What ``certify`` and ``baseline check`` say of outputs that have broken: no column of errors shows it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from otel_quantmon.fidelity.baseline.replay import Broken, OutputReport

__all__ = ["write_broken"]

_TEXTS: Mapping[Broken, str] = MappingProxyType(
    {
        "nonfinite": "are NaN or infinite where that was not recorded",
        "nonzero": "are other numbers where zeros were recorded",
        "no_sample": "can no longer be compared with what was recorded: another shape or type",
    }
)


def write_broken(name: str, output: OutputReport) -> None:
    """Write in how many cases the output ``name`` has broken, and how."""
    for how, count in output.broken.items():
        sys.stdout.write(f"{name}: {count} cases {_TEXTS[how]}\n")
