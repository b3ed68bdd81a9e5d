"""The command line, ``quantmon``: record and check a golden baseline, compare a quantized model with its original."""

from __future__ import annotations

from otel_quantmon.cli.command import main

__all__ = ["main"]
