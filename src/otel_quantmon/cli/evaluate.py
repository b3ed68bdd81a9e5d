"""``quantmon evaluate``: one worker that runs float models on samples of other processes."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from otel_quantmon.cli.output import number, table, write_json
from otel_quantmon.cli.packages import need
from otel_quantmon.errors import CommandError
from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.ledger import Ledger
from otel_quantmon.evaluator.references import FloatModels, read_models
from otel_quantmon.evaluator.reporting import Reporting
from otel_quantmon.evaluator.source import Source
from otel_quantmon.evaluator.worker import AT_ONCE, EvaluatorWorker
from otel_quantmon.fidelity.remote.record import LARGEST
from otel_quantmon.fidelity.remote.store import Store
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.exporting import begin_export, is_export_asked_for

__all__ = ["evaluate_command"]

_STATE = "state.sqlite"

# A claim ends when nothing has been heard of its worker for so many times the longest run.
_RUNS_IN_LEASE = 4

_LARGEST_PORT = 65535


def evaluate_command(arguments: Namespace) -> int:
    """Evaluate samples; see ``quantmon evaluate --help``."""
    need("quantmon evaluate", "remote", "zstandard")
    try:
        return _carry_out(arguments)
    except sqlite3.Error as error:
        # In the middle of the work: the disk is full, or another process holds the file.
        raise CommandError(f"the file of --state or of --fleet cannot be used any more: {error}") from error


def _carry_out(arguments: Namespace) -> int:
    if is_export_asked_for(os.environ):
        need("quantmon evaluate with an exporter", "otlp", "opentelemetry.sdk", "opentelemetry.distro")
        # The series of a worker that is started again are those that it had.
        begin_export("quantmon-evaluate", arguments.name)
    settings = read_models(arguments.models)
    reporting = Reporting(settings)
    source, state = _source(arguments, _lease(settings), reporting)
    name = arguments.name or f"{socket.gethostname()}-{os.getpid()}"
    ledger = Ledger(state, name)
    if arguments.fleet is not None:
        reporting.join_fleet(arguments.fleet, name)
    try:
        _evaluate(
            EvaluatorWorker(source, FloatModels(settings, arguments.threads), ledger, reporting),
            until_empty=arguments.until_empty,
        )
        _show(ledger.totals(), reporting, as_json=arguments.json)
    finally:
        reporting.flush()
        if reporting.fleet is not None:
            reporting.fleet.close()
        source.close()
        ledger.close()
    return 0


def _lease(settings: Settings) -> float:
    """Seconds of a claim's lease: a batch has the time of all its samples, and nothing is renewed meanwhile."""
    batches = (int(section.get("reference_batch", 1)) for section in settings.models.values())
    longest = settings.reference_timeout * min(max(batches, default=1), AT_ONCE)
    return _RUNS_IN_LEASE * longest


def _source(arguments: Namespace, lease: float, reporting: Reporting) -> tuple[Source, Path]:
    """The source, and the file of its state."""
    kind, _, rest = arguments.source.partition(":")
    if kind == "dir" and rest:
        return DirectorySource(rest, lease), arguments.state or Path(rest) / _STATE
    address, _, place = rest.removeprefix("//").partition("/")
    if kind not in ("kafka", "otlp", "kserve") or not rest.startswith("//") or not address or not place:
        raise CommandError(
            f"no such source: {arguments.source!r}; give dir:PATH, otlp://HOST:PORT/PATH, kserve://HOST:PORT/PATH "
            "or kafka://HOST:PORT/TOPIC"
        )
    if kind == "kserve":
        from otel_quantmon.evaluator.kserve import KServeSource

        host, port = _to_listen_on(address)
        kserve = KServeSource(host, port, place, lease, lambda outcome: reporting.count((), outcome))
        return kserve, arguments.state or Path(place) / _STATE
    store = None if arguments.store is None else _store(arguments.store)
    if kind == "otlp":
        need("OTLP as the source", "otlp", "opentelemetry.proto")
        from otel_quantmon.evaluator.otlp import OtlpSource

        host, port = _to_listen_on(address)
        source = OtlpSource(host, port, place, lease, store)
        return source, arguments.state or Path(place) / _STATE
    if arguments.state is None:
        raise CommandError("name a file for the state with --state: a topic has no place for it")
    need("a topic of Kafka as the source", "kafka", "confluent_kafka", "opentelemetry.proto")
    properties = _properties(arguments.kafka_properties)
    return _topic(arguments.group, address, place, lease, properties, store), arguments.state


def _to_listen_on(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise CommandError(f"{address!r} has no port")
    if int(port) > _LARGEST_PORT:
        raise CommandError(f"{address!r} has no port that there is: give one up to {_LARGEST_PORT}")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise CommandError(f"{host!r} is no name of a host: {error}") from error
    return host, int(port)


def _store(url: str) -> Store:
    need("--store", "remote", "fsspec")
    try:
        return Store(url, LARGEST)
    except (ImportError, ValueError) as error:
        # fsspec says which package it needs for an address of this kind, or that it knows none.
        raise CommandError(f"--store {url}: {error}") from error


def _topic(
    group: str, brokers: str, topic: str, lease: float, properties: Mapping[str, str], store: Store | None
) -> Source:
    """The source of a topic, by the kind of group that is asked for."""
    from otel_quantmon.evaluator.kafka import KafkaSource
    from otel_quantmon.evaluator.share import SharedIfPossible, ShareSource

    def ordinary() -> Source:
        return KafkaSource(brokers, topic, lease, properties, store)

    def shared() -> Source:
        return ShareSource(brokers, topic, properties, store)

    if group == "auto":
        return SharedIfPossible(shared, ordinary)
    return shared() if group == "share" else ordinary()


def _properties(path: str | None) -> dict[str, str]:
    """The properties in a file of ``key=value`` lines, ``#`` before a comment."""
    if path is None:
        return {}
    found: dict[str, str] = {}
    for place, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        key, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals:
            raise CommandError(f"{path}, line {place}: write key=value")
        found[key.strip()] = value.strip()
    return found


def _evaluate(worker: EvaluatorWorker, *, until_empty: bool) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        worker.run(until_empty=until_empty)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(totals: Sequence[tuple[tuple[str, ...], str, int]], reporting: Reporting, *, as_json: bool) -> None:
    samples: dict[str, dict[str, int]] = {}
    for key, outcome, count in totals:
        by_outcome = samples.setdefault(key[0] if key else "", {})
        by_outcome[outcome] = by_outcome.get(outcome, 0) + count
    outputs: dict[str, dict[str, Mapping[str, float | None]]] = {}
    for series in reporting.live_series():
        if series.assessment is None:
            continue
        for (_, output), window in series.assessment.outputs.items():
            summary = window.summary()
            error, cosine, differs = summary.relative_error, summary.cosine_similarity, summary.disagreement
            outputs.setdefault(series.key[0], {})[output] = {
                "relative_error_mean": None if error is None else error.mean,
                "relative_error_max": None if error is None else error.maximum,
                "cosine_similarity": None if cosine is None else cosine.mean,
                "disagreement": None if differs is None else differs.mean,
            }
    fleet = _fleet(reporting)
    if as_json:
        write_json({"samples": samples, "outputs": outputs} | ({} if fleet is None else {"fleet": fleet}))
        return
    table(
        "samples",
        ["model", "outcome", "count"],
        [
            [model or "(not readable)", outcome, str(count)]
            for model, by_outcome in samples.items()
            for outcome, count in by_outcome.items()
        ],
    )
    for model, by_output in outputs.items():
        table(
            f"{model}, the last samples of this worker",
            ["output", "relative error, mean", "largest", "cosine", "disagreement"],
            [[output, *(number(value) for value in values.values())] for output, values in by_output.items()],
        )
    if fleet:
        table(
            "where in the fleet something has changed",
            ["model", "type", "scope", "hosts"],
            [[one["model"], one["type"], one["scope"], ", ".join(one["hosts"])] for one in fleet],
        )


def _fleet(reporting: Reporting) -> list[dict[str, Any]] | None:
    """Where in the fleet something has changed; None if this worker does not judge one."""
    if reporting.fleet is None:
        return None
    standing = reporting.fleet.standing
    changes = [
        {"model": model[0], "type": kind, "scope": place.scope, "hosts": list(place.hosts)}
        for (model, kind), places in standing.places.items()
        for place in places
    ]
    golden = [
        {"model": model[0], "type": "golden", "scope": "host", "hosts": [one.host for one in found]}
        for model, found in standing.disagreements.items()
        if found
    ]
    return changes + golden
