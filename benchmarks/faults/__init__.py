"""Faults in real models, found or not: ``python -m benchmarks.faults``, see `__main__`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# real_models is in the first, and what all benchmarks share in the second.
sys.path += [str(ROOT / "tests"), str(ROOT / "benchmarks")]
