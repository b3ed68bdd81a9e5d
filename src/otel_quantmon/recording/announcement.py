"""One event that says all: what has changed, since when, how sure that is, where, why most likely, and what to do."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from time import perf_counter, time
from typing import cast

from otel_quantmon import semconv
from otel_quantmon.detection.life_cycle import News
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.recording.diagnosis import OF_DATA, Diagnosis, diagnose
from otel_quantmon.recording.series import Series
from otel_quantmon.telemetry.instruments import Attributes

__all__ = ["attributes_of_news", "sentence"]

# Meaning of a stream's ``of``, where an attribute says it.
_NAMED = {
    "relative_error": semconv.OUTPUT_NAME,
    "disagreement": semconv.OUTPUT_NAME,
    "cosine": semconv.OUTPUT_NAME,
    "output_distribution": semconv.OUTPUT_NAME,
    "input_distribution": semconv.INPUT_NAME,
    "clipping": semconv.INPUT_NAME,
}


def attributes_of_news(news: News, series: Series | None) -> Attributes:
    """Return what an event says; values that are not known are None or not finite.

    Args:
        news: What is reported.
        series: Series of the model with the most evidence; None for the process.
    """
    transition = news.first
    judgement = transition.judgement
    attributes: Attributes = {}
    if series is not None and len(news.models) == 1:
        attributes |= series.attributes
    attributes |= {
        semconv.ANOMALY_TYPE: news.kind,
        semconv.ANOMALY_MODELS: tuple(filter(None, news.models)),
        semconv.ANOMALY_VALUE: judgement.value,
        semconv.ANOMALY_BASELINE: judgement.baseline,
        semconv.ANOMALY_STATISTIC: judgement.statistic,
        semconv.ANOMALY_EVIDENCE: math.nan if judgement.evidence is None else judgement.evidence,
        semconv.ANOMALY_OBSERVATIONS: judgement.observations,
        semconv.ANOMALY_SINCE: _utc(transition.since or transition.at),
        semconv.BASELINE_SOURCE: transition.baseline,
        semconv.CPU_ISA: cpu_isa(),
    }
    named = _NAMED.get(transition.kind)
    if named is not None and transition.of:
        attributes[named] = semconv.bounded(transition.of)
    error = _error(news, series)
    if error is not None:
        attributes[semconv.ERROR_TYPE] = error
    if news.what == "entered":
        diagnosis = _diagnosis(news, series)
        attributes[semconv.ANOMALY_CAUSE] = diagnosis.cause
        attributes[semconv.ANOMALY_REMEDY] = diagnosis.remedy
        layer = _layer(news, series)
        if layer is not None:
            attributes[semconv.ANOMALY_LAYER] = semconv.bounded(layer[0])
    return attributes


def sentence(news: News, series: Series | None) -> str:
    """Return the same for people; arguments as for `attributes_of_news`."""
    transition = news.first
    judgement = transition.judgement
    of = transition.of or judgement.stream
    models = [repr(name) for name in news.models if name]
    who = "the process" if not models else f"model{'s' * (len(models) > 1)} {', '.join(models)}"
    on = f" on {semconv.bounded(of)}" if of else ""
    if news.what == "left":
        return f"{who}: {news.kind} is over{on}, after {transition.lasted:.0f} s"
    if judgement.evidence is None:
        said = "" if judgement.statistic == "fact" else f", {judgement.statistic} {judgement.value:.4g}"
    else:
        said = (
            f", {judgement.statistic} {judgement.value:.4g} where its baseline ({transition.baseline}) has "
            f"{judgement.baseline:.4g}, for {judgement.observations} observations since "
            f"{_utc(transition.since or transition.at)}; e-value {judgement.evidence:.2g}"
        )
    error = _error(news, series)
    named = f" ({error})" if error is not None else ""
    layer = _layer(news, series)
    where = f"; the error enters at {semconv.bounded(layer[0])} ({layer[1]})" if layer is not None else ""
    diagnosis = _diagnosis(news, series)
    why = f", {diagnosis.reason}" if diagnosis.reason else ""
    return (
        f"{who}: {news.kind} is anomalous{on}{said}{named}{where}; likely cause on this host ({cpu_isa()}): "
        f"{diagnosis.cause}{why}; {diagnosis.remedy}"
    )


def _diagnosis(news: News, series: Series | None) -> Diagnosis:
    active = {} if series is None else series.streams.active()
    return diagnose(
        cast("semconv.AnomalyType", news.kind),
        len(news.models),
        None if series is None else series.inquiry,
        inputs_changed=active.get("input_distribution", False) or active.get("clipping", False),
    )


def _layer(news: News, series: Series | None) -> tuple[str, str] | None:
    """Return the layer where the error enters, and its operator; None where that is not known, or no error is told."""
    if series is None or series.inquiry is None or news.kind not in OF_DATA:
        return None
    entry = series.inquiry.entry
    return None if entry is None or entry.layer is None else (entry.layer, entry.operator or "")


def _error(news: News, series: Series | None) -> str | None:
    return series.streams.errors() if series is not None and news.kind == "error_rate" else None


def _utc(instant: float) -> str:
    """Return a moment of `time.perf_counter` as RFC 3339 has it."""
    moment = datetime.fromtimestamp(time() - (perf_counter() - instant), timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
