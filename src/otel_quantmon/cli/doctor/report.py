"""``quantmon doctor``: what was found, what is in the way, and what to do."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from otel_quantmon.cli.doctor import surroundings
from otel_quantmon.cli.doctor.watching import Process, Watched, watch
from otel_quantmon.cli.output import table, write_json

__all__ = ["doctor_command"]


def doctor_command(arguments: Namespace) -> int:
    """Look at what is here, and at a command; see ``quantmon doctor --help``.

    Returns:
        0 if nothing is in the way, 1 if something is.

    Raises:
        CommandError: The command cannot be started.
    """
    command: list[str] = arguments.line[1:] if arguments.line[:1] == ["--"] else arguments.line
    environment = dict(os.environ)
    packages = surroundings.packages()
    runtimes = surroundings.runtimes(environment)
    settings, wrong = surroundings.settings(environment)
    endpoints = surroundings.endpoints(environment)
    # JSON has the standard output for itself.
    output = sys.stderr.fileno() if arguments.json else None
    watched = watch(command, output) if command else None

    problems = list(wrong)
    off = surroundings.disabled(environment)
    if off:
        problems.append(off)
    if not packages["opentelemetry-sdk"] or not packages["opentelemetry-distro"]:
        problems.append("opentelemetry-instrument has no SDK to set up: pip install 'otel-quantmon[otlp]'")
    if not runtimes:
        problems.append("no runtime is installed in this Python: nothing can be instrumented here")
    problems += [f"{runtime.distribution}: {runtime.why_not}" for runtime in runtimes if runtime.why_not]
    switched = next((one for one in settings if one.name == "enabled"), None)
    if switched is not None and switched.value is False:
        problems.append(f"{switched.source} switches otel-quantmon off")
    problems += _of_endpoints(endpoints)
    if watched is not None:
        problems += _of_command(watched)
    if arguments.json:
        write_json(
            {
                "python": sys.executable,
                "packages": packages,
                "runtimes": [one._asdict() for one in runtimes],
                "settings": [one._asdict() for one in settings],
                "endpoints": [one._asdict() for one in endpoints],
                "command": None if watched is None else asdict(watched),
                "problems": problems,
            }
        )
    else:
        _show(packages, runtimes, settings, endpoints, watched)
        for line in problems:
            sys.stdout.write(f"problem: {line}\n")
        if not problems:
            sys.stdout.write("nothing is in the way\n")
    return 1 if problems else 0


def _of_endpoints(endpoints: Sequence[surroundings.Endpoint]) -> list[str]:
    silent: dict[str, list[str]] = {}
    for one in endpoints:
        if one.why_not:
            silent.setdefault(one.why_not, []).append(one.signal)
    return [
        f"{', '.join(signals)}: {why}; set OTEL_EXPORTER_OTLP_ENDPOINT, or look without any: quantmon run -- COMMAND"
        for why, signals in silent.items()
    ]


def _of_command(watched: Watched) -> list[str]:
    problems: list[str] = []
    if not watched.processes:
        problems.append("the command started no Python that heeds PYTHONPATH: python -I and -E do not")
    models = [process for process in watched.processes if process.runtimes]
    if watched.processes and not models:
        problems.append("no process of the command imported ONNX Runtime, TensorFlow Lite or LiteRT")
    for process in models:
        who = f"process {' '.join(process.argv)[:80]!r}"
        providers = process.providers or {}
        if not process.installed:
            problems.append(f"{who}: its Python {process.python} has no otel-quantmon: install it there")
        elif not process.instrumented:
            problems.append(
                f"{who}: otel-quantmon was not switched on: start it by opentelemetry-instrument, or call "
                "ONNXRuntimeInstrumentor().instrument()"
            )
        elif not any(providers.values()):
            problems.append(
                f"{who}: no provider was ever set, so nothing is recorded: start it by opentelemetry-instrument with "
                "opentelemetry-distro installed, or set a tracer and a meter provider"
            )
        elif not providers.get("metrics"):
            problems.append(f"{who}: no meter provider was set, so there are no metrics")
    problems += [
        f"process {' '.join(process.argv)[:80]!r} ended without Python's exit handlers: nothing is known of it"
        for process in watched.processes
        if not process.ended
    ]
    return problems


def _show(
    packages: dict[str, str | None],
    runtimes: Sequence[surroundings.Runtime],
    settings: Sequence[surroundings.Setting],
    endpoints: Sequence[surroundings.Endpoint],
    watched: Watched | None,
) -> None:
    rows = [[name, version or "not installed"] for name, version in packages.items()]
    table(f"installed in {sys.executable}", ["package", "version"], rows)
    rows = [[one.distribution, one.version, one.why_not or "would be"] for one in runtimes]
    table("runtimes", ["package", "version", "instrumented"], rows)
    given = [[one.name, str(one.value), one.source] for one in settings]
    table("settings that are not the default", ["setting", "value", "from"], given)
    rows = [
        [one.signal, one.exporter, one.address or "-", one.why_not or ("yes" if one.address else "-")]
        for one in endpoints
    ]
    table("where opentelemetry-instrument sends", ["signal", "exporter", "endpoint", "answers"], rows)
    if watched is not None:
        table(
            f"the command, which ended with status {watched.status}",
            ["process", "runtimes", "instrumented", "providers"],
            [_row(process) for process in watched.processes],
        )


def _row(process: Process) -> list[str]:
    if not process.ended:
        return [" ".join(process.argv)[:60], "?", "?", "?"]
    providers: dict[str, Any] = process.providers or {}
    told = ", ".join(signal for signal, provider in providers.items() if provider) or "none"
    return [
        " ".join(process.argv)[:60],
        ", ".join(process.runtimes) or "none",
        "yes" if process.instrumented else "no",
        told,
    ]
