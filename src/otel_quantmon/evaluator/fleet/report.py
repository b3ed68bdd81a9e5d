"""What a fleet is told of: metrics, events and log lines about where something has changed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from otel_quantmon import semconv
from otel_quantmon.evaluator.fleet.findings import StreamName, findings_of, golden_of, subject_of
from otel_quantmon.evaluator.fleet.judge import FleetNews, Judge, Standing
from otel_quantmon.evaluator.fleet.state import FleetState, Sighting
from otel_quantmon.fidelity.numerics.comparison import Comparison
from otel_quantmon.fidelity.remote.record import SampleRecord
from otel_quantmon.telemetry.instruments import Attributes, Measurements
from otel_quantmon.telemetry.providers import Providers

__all__ = ["Fleet"]

_logger = logging.getLogger("otel_quantmon")

# Hosts that metrics and events name: a fleet is not to make series without end.
_MOST_HOSTS = 20

_CAUSES: Final[dict[str, semconv.AnomalyCause]] = {
    "everywhere": "data",
    "service": "data",
    "version": "file",
    "host": "machine",
    "unknown": "unknown",
}
_REMEDIES: Final = {
    "everywhere": "look at what all are fed: its source, scale, order of channels and normalization",
    "service": "look at what this service feeds the model",
    "version": "compare this version with the one before (`quantmon compare`), or roll it back",
    "host": "run `quantmon certify` on these hosts: it names what their processor lacks and what helps",
    "unknown": "see whether other hosts send samples of this model: one alone has nobody to be compared with",
}
_OF_INPUT = frozenset({"input_distribution", "clipping"})


class Fleet:
    """The part of one worker in the judgement of a fleet. For one thread, but for `points`.

    Args:
        path: Path of the file that all workers share.
        worker: Name of this worker.
        per_million: False alarms in 10^6 evaluations, at most.
        providers: A function that gives the providers to report to.
    """

    def __init__(
        self, path: Path, worker: str, per_million: float, providers: Callable[[], Providers]
    ) -> None:
        self._state = FleetState(path)
        self._judge = Judge(self._state, worker, per_million)
        self._providers = providers
        self._waiting: list[Sighting] = []

    @property
    def standing(self) -> Standing:
        """How the fleet is; empty while another worker judges."""
        return self._judge.standing

    def note(self, model: tuple[str, ...], record: SampleRecord, comparisons: Sequence[Comparison]) -> None:
        """Take an evaluated sample, for `commit`.

        Args:
            model: Values of `semconv.MODEL_ATTRIBUTES`.
            record: The sample.
            comparisons: Its comparisons with the float model.
        """
        if record.golden:
            golden = golden_of(record, comparisons)
            sighting = Sighting(record.id, model, subject_of(record), golden=golden)
        else:
            sighting = Sighting(record.id, model, subject_of(record), findings_of(record, comparisons))
        self._waiting.append(sighting)

    def commit(self) -> None:
        """Write down what was taken: before the samples are counted, and once however often they are evaluated."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._state.add(waiting)

    def judge(self) -> None:
        """Judge what there is if it is this worker's turn, and report what has changed."""
        for number, news in self._judge.run():
            self._announce(news)
            self._judge.reported(number)

    def points(self, metric: semconv.Metric) -> Measurements:
        """Return the points of a metric of `semconv.FLEET_METRICS`."""
        standing = self._judge.standing
        if metric is semconv.METRIC_FLEET_HOSTS:
            return [(count, _model(model)) for model, count in standing.hosts.items()]
        if metric is semconv.METRIC_FLEET_GOLDEN_ERROR_RATIO:
            return [
                (
                    one.ratio,
                    {**_model(model), **_host(one.host), semconv.FLEET_LACKING: "+".join(one.lacking)},
                )
                for model, found in standing.disagreements.items()
                for one in found[:_MOST_HOSTS]
            ]
        return list(_active(standing))

    def close(self) -> None:
        """Let another worker judge, and close the file."""
        self._judge.leave()
        self._state.close()

    def _announce(self, news: FleetNews) -> None:
        entered = news.what != "left"
        event = {
            "entered": semconv.EVENT_FLEET_ANOMALY_ENTERED,
            "left": semconv.EVENT_FLEET_ANOMALY_LEFT,
            "disagree": semconv.EVENT_FLEET_HOSTS_DISAGREE,
        }[news.what]
        body = _sentence(news)
        self._providers().events.emit(event, _attributes(news), body, warning=entered)
        _logger.log(logging.WARNING if entered else logging.INFO, "%s", body)


def _active(standing: Standing) -> Iterator[tuple[float, Attributes]]:
    for (model, kind), places in standing.places.items():
        attributes = {**_model(model), semconv.ANOMALY_TYPE: kind}
        scopes = {place.scope for place in places}
        # 0 where nothing is on: so that it is seen that it is watched for.
        yield float("everywhere" in scopes), {**attributes, semconv.FLEET_SCOPE: "everywhere"}
        for scope in sorted(scopes - {"everywhere", "host"}):
            yield 1.0, {**attributes, semconv.FLEET_SCOPE: scope}
        hosts = {host for place in places if place.scope == "host" for host in place.hosts}
        for host in sorted(hosts)[:_MOST_HOSTS]:
            yield 1.0, {**attributes, semconv.FLEET_SCOPE: "host", **_host(host)}


def _attributes(news: FleetNews) -> Attributes:
    place, said = news.place, news.judgement
    attributes: Attributes = {
        **_model(news.model),
        semconv.FLEET_HOSTS: tuple(map(semconv.bounded, place.hosts[:_MOST_HOSTS])),
        semconv.FLEET_LACKING: "+".join(place.lacking),
    }
    if news.what == "disagree":
        return attributes | {
            semconv.ANOMALY_CAUSE: "machine",
            semconv.ANOMALY_REMEDY: _REMEDIES["host"],
        }
    attributes |= {
        semconv.FLEET_SCOPE: place.scope,
        semconv.FLEET_VERSIONS: place.versions,
        semconv.FLEET_SERVICES: tuple(map(semconv.bounded, place.services)),
    }
    if news.stream is not None:
        attributes[semconv.ANOMALY_TYPE] = news.stream.kind
        if news.stream.of:
            named = semconv.INPUT_NAME if news.stream.kind in _OF_INPUT else semconv.OUTPUT_NAME
            attributes[named] = semconv.bounded(news.stream.of)
    if said is not None:
        attributes |= {
            semconv.ANOMALY_VALUE: said.value,
            semconv.ANOMALY_BASELINE: said.baseline,
            semconv.ANOMALY_STATISTIC: said.statistic,
            semconv.ANOMALY_EVIDENCE: math.nan if said.evidence is None else said.evidence,
            semconv.ANOMALY_OBSERVATIONS: said.observations,
        }
    if news.what == "entered":
        attributes |= {
            semconv.ANOMALY_CAUSE: _CAUSES[place.scope],
            semconv.ANOMALY_REMEDY: _REMEDIES[place.scope],
        }
    return attributes


def _sentence(news: FleetNews) -> str:
    model, place, said = semconv.bounded(news.model[0]), news.place, news.judgement
    hosts = ", ".join(map(semconv.bounded, place.hosts[:_MOST_HOSTS]))
    more = f" and {len(place.hosts) - _MOST_HOSTS} more" if len(place.hosts) > _MOST_HOSTS else ""
    lacking = f", which lack {', '.join(place.lacking)}" if place.lacking else ""
    if news.what == "disagree":
        return (
            f"model {model!r}: hosts {hosts}{more}{lacking} make something else of the golden inputs than the "
            f"others; {_REMEDIES['host']}"
        )
    where = {
        "everywhere": "everywhere",
        "version": f"in version {', '.join(place.versions)}, on {hosts}{more}",
        "service": f"in service {', '.join(map(semconv.bounded, place.services))}",
        "host": f"on {hosts}{more} alone{lacking}",
        "unknown": f"on {hosts or 'some hosts'}{more}",
    }[place.scope]
    stream = news.stream or StreamName("", "", "")
    of = f" of {semconv.bounded(stream.of)}" if stream.of else ""
    if news.what == "left":
        return f"fleet, model {model!r}: {stream.kind}{of} is over {where}"
    number = f" ({stream.number})" if stream.number else ""
    values = "" if said is None else f", {said.statistic} {said.value:.4g} where it was {said.baseline:.4g}"
    evidence = "" if said is None or said.evidence is None else f"; e-value {said.evidence:.2g}"
    return (
        f"fleet, model {model!r}: {stream.kind}{of}{number} has changed {where}{values}{evidence}; likely cause: "
        f"{_CAUSES[place.scope]}; {_REMEDIES[place.scope]}"
    )


def _model(model: tuple[str, ...]) -> Attributes:
    return dict(zip(semconv.MODEL_ATTRIBUTES, model, strict=False))


def _host(name: str) -> Attributes:
    return {semconv.FLEET_HOST: semconv.bounded(name)}
