"""What is true of the process and its machine."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from otel_quantmon.guard import pass_on

if TYPE_CHECKING:
    import psutil

__all__ = ["cpu_isa", "resident_memory"]


@cache
def _process(pid: int) -> psutil.Process:
    # By pid: psutil's object is of the process that made it, and a forked child inherits the cache.
    import psutil

    return psutil.Process(pid)


def resident_memory() -> int:
    """Resident set size of this process, in bytes."""
    return _process(os.getpid()).memory_info().rss


# Instruction sets that decide how int8 kernels run and, without the first two, whether u8 x s8 products can
# saturate in int16 (ONNX Runtime's documentation on quantization, "When to use reduce-range for activations").
_INT8_FLAGS = (
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "avx512bw",
    "avx2",
    "sse4_1",
    "i8mm",
    "asimddp",
    "sve",
    "asimd",
)


@cache
def cpu_isa() -> str:
    """Return the machine and those of its instruction sets that matter to int8, such as ``x86_64+avx2``."""
    machine = platform.machine() or "unknown"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        pass_on(error)
        return machine
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return "+".join([machine, *(flag for flag in _INT8_FLAGS if flag in flags)])
    return machine
