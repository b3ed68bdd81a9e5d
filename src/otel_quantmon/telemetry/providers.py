"""One pair of providers, and whether anything that is reported to it goes anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from opentelemetry import _logs, trace
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider, get_tracer_provider

from otel_quantmon import semconv
from otel_quantmon.guard import internal_error
from otel_quantmon.telemetry.events import Events
from otel_quantmon.telemetry.instruments import Instruments, Measurements
from otel_quantmon.telemetry.spans import Spans

__all__ = ["Origin", "Providers"]


class Origin(NamedTuple):
    """Where telemetry comes from; texts are empty where that is not known.

    Attributes:
        host: Name of the machine: of the node, in Kubernetes.
        service: Name of the service.
    """

    host: str
    service: str


class Providers:
    """The ways out to a tracer provider and a meter provider, None for the global ones.

    Args:
        tracer_provider: Provider of the spans.
        meter_provider: Provider of the metrics.
        measure: Gives the current points of an observed metric.
        in_background: Runs a job on another thread than the application's.
        logger_provider: Provider of the events, None for the global one.

    Attributes:
        tracer_provider: As given.
        meter_provider: As given.
        spans: Makes spans.
        instruments: All instruments.
        events: Emits events.
        idle: Tells whether there is nowhere to report to: no SDK, no provider yet, or both switched off.
    """

    __slots__ = ("events", "idle", "instruments", "meter_provider", "spans", "tracer_provider")

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        measure: Callable[[semconv.Metric], Measurements],
        in_background: Callable[[Callable[[], object]], object],
        logger_provider: Any = None,
    ) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self.events = Events(logger_provider)
        self.spans = Spans(tracer_provider, in_background)
        self.instruments = Instruments(meter_provider, measure, in_background)
        self.idle = _asking(self.instruments, self.spans)

    def exporting(self) -> list[Any]:
        """Return the providers of logs, spans and metrics that can be flushed."""
        providers: list[Any] = [
            self.events.logger_provider or _logs.get_logger_provider(),
            self.tracer_provider or get_tracer_provider(),
            self.meter_provider or get_meter_provider(),
        ]
        return [provider for provider in providers if hasattr(provider, "force_flush")]

    def after_fork(self) -> None:
        """In a child: let readers export, of which one held the lock for it in the parent when that forked.

        The SDK starts their threads anew and leaves them this lock, which nobody in the child will ever let go of: then
        nothing is exported, and the end of the process waits for it.
        """
        provider: Any = self.meter_provider or get_meter_provider()
        config: Any = getattr(provider, "_sdk_config", None)
        # Where older releases have them.
        readers: Any = getattr(provider, "_metric_readers", None) or getattr(config, "metric_readers", ())
        for reader in readers:
            if hasattr(reader, "_export_lock"):
                reader._export_lock = threading.Lock()

    def origin(self) -> Origin:
        """Return what the resource of a provider of the SDK says of where all this comes from."""
        meters: Any = self.meter_provider or get_meter_provider()
        places = (
            getattr(meters, "_sdk_config", None),
            self.tracer_provider or get_tracer_provider(),
            self.events.logger_provider or _logs.get_logger_provider(),
        )
        found: Any = next(
            (r for place in places if (r := getattr(place, "resource", None)) is not None), None
        )
        attributes: Mapping[str, Any] = getattr(found, "attributes", {})
        # As the recording rules have it: in Kubernetes the name of the host is that of a pod.
        host = attributes.get("k8s.node.name") or attributes.get("host.name") or ""
        return Origin(str(host), str(attributes.get("service.name", "")))

    def shut_down(self) -> bool:
        """Return True once the SDK's provider of meters has been shut down."""
        provider = self.meter_provider or get_meter_provider()
        return getattr(provider, "_shutdown", False) is True


def _asking(instruments: Instruments, spans: Spans) -> Callable[[], bool]:
    """Return `Providers.idle`. While the answer is yes every call asks, and a function takes less than a method."""
    # What the API has in place of the duration's histogram until there is a meter provider, if both are waited for.
    awaited: Any = None
    # The name is where the API keeps the other provider, in all releases so far.
    if instruments.proxied and spans.proxied and hasattr(trace, "_TRACER_PROVIDER"):
        awaited = instruments.duration.histogram

    def idle() -> bool:
        try:
            # The usual reason is looked for where it shows.
            if awaited is not None and awaited._real_instrument is None and trace._TRACER_PROVIDER is None:  # pyright: ignore[reportPrivateUsage]  see above
                return True
            return not (instruments.recording() or spans.recording())
        except Exception as error:  # noqa: BLE001  a provider of a third party may raise anything
            internal_error(error)
            return True

    return idle
