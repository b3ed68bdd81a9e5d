"""Runs a command as it is, with a witness in each of its Python processes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_quantmon.cli.doctor import witness
from otel_quantmon.cli.supervision import Supervised
from otel_quantmon.errors import CommandError

__all__ = ["Process", "Watched", "watch"]

_VARIABLE = "_QUANTMON_WITNESS"
_ENTRY_POINT = "[opentelemetry_pre_instrument]\nquantmon_witness = quantmon_witness:begin\n"
_METADATA = "Metadata-Version: 2.1\nName: quantmon-witness\nVersion: 0\n"


@dataclass(frozen=True, slots=True)
class Process:
    """One Python process of the command.

    Attributes:
        argv: Its command line.
        ended: False if it ended without Python's exit handlers, so that nothing else is known.
        python: The interpreter.
        installed: Whether it has otel-quantmon.
        runtimes: Those that it has imported.
        instrumented: Whether otel-quantmon was switched on.
        providers: Class of the provider by signal; None where none was set.
    """

    argv: tuple[str, ...]
    ended: bool
    python: str = ""
    installed: bool = False
    runtimes: tuple[str, ...] = ()
    instrumented: bool = False
    providers: dict[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A command that has ended.

    Attributes:
        status: Its exit status.
        processes: Its Python processes.
    """

    status: int
    processes: tuple[Process, ...]


def watch(command: Sequence[str], output: int | None = None) -> Watched:
    """Run ``command`` to its end.

    Args:
        command: The command.
        output: Descriptor that its standard output goes to; None for that of this process.

    Raises:
        CommandError: It cannot be started.
    """
    if os.name != "posix":
        raise CommandError("to look at a command needs Linux or macOS")
    supervised = Supervised()
    with tempfile.TemporaryDirectory(prefix="quantmon-doctor-", ignore_cleanup_errors=True) as folder:
        place = Path(folder, "path")
        told = Path(folder, "told")
        told.mkdir()
        _prepare(place)
        given = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            _VARIABLE: str(told),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(place), given])),
        }
        try:
            supervised.start(command, environment, output)
            status = supervised.wait(lambda: None, 1.0)
        except OSError as error:
            raise CommandError(f"{command[0]}: {error.strerror or error}") from error
        finally:
            supervised.release()
        processes = tuple(_process(path) for path in sorted(told.iterdir()))
    return Watched(status, processes)


def _prepare(place: Path) -> None:
    information = place / "quantmon_witness-0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(_METADATA, encoding="utf-8")
    (information / "entry_points.txt").write_text(_ENTRY_POINT, encoding="utf-8")
    for name in ("sitecustomize.py", "quantmon_witness.py"):
        shutil.copyfile(witness.__file__, place / name)


def _process(path: Path) -> Process:
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    told |= {name: tuple(told[name]) for name in ("argv", "runtimes") if name in told}
    return Process(**told)
