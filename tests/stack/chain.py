"""All that a sample goes through: two services, a Collector, a broker, and workers that share one partition."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stack.backends import Collector, Kafka
from stack.evaluating import broker_with_topics, worker
from stack.test_stack_samples import points, routing_collector
from stack.test_stack_service import Classifier, classifier

SERVICES = ("east", "west")
WORKERS = ("a", "b", "c")


@dataclass
class Chain:
    """The running parts.

    Attributes:
        folder: has the state of the workers, and what they print.
        state: the Collector's; its file of metrics is there.
        services: by name.
        more: of each worker's command.
        workers: the processes by name.
    """

    folder: Path
    broker: Kafka
    collector: Collector
    services: dict[str, Classifier]
    more: tuple[str, ...] = ()
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(self, name: str) -> None:
        """Start a worker, or start it again."""
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.collector.otlp_grpc}",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        self.workers[name] = self._stack.enter_context(
            worker(self.broker, self.folder, name, *self.more, group="share", variables=variables)
        )

    def ask(self, times: int) -> None:
        """Ask each service so many times."""
        for number in range(times):
            for name, service in self.services.items():
                service.classify(f"import {name}{number}\n".encode())

    def sent(self) -> dict[str, int]:
        """Samples that each service says it has sent."""
        return self._sums(
            "quantmon.reference.evaluations", reference_source="remote", reference_outcome="sent"
        )

    def exported(self, *, failed: bool) -> dict[str, int]:
        """Log records that each service's SDK has exported, or has given up; all of them are samples."""
        found: dict[str, int] = {}
        for (resource, attributes), series in points(self.state, "otel.sdk.exporter.log.exported").items():
            if ("error.type" in json.loads(attributes)) == failed:
                name = _service(resource)
                found[name] = found.get(name, 0) + int(series[-1]["asInt"])
        return found

    def reported(self, outcome: str) -> int:
        """Samples of which the workers' metrics say that this became of them."""
        return sum(self._sums("quantmon.reference.evaluations", reference_outcome=outcome).values())

    def _sums(self, metric: str, **attributes: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for (resource, _), series in points(self.state, metric, **attributes).items():
            found[_service(resource)] = found.get(_service(resource), 0) + int(series[-1]["asInt"])
        return found


def _service(resource: str) -> str:
    """The name of the service in a resource."""
    attributes = json.loads(resource)["attributes"]
    return next(item["value"]["stringValue"] for item in attributes if item["key"] == "service.name")


@contextmanager
def chain(folder: Path, *more: str) -> Iterator[Chain]:
    """Run all of it. Services send each call that they may, and their SDKs count what they lose.

    Args:
        folder: has what all leave.
        more: of each worker's command. Each service is on a host of its own, by its resource.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(broker_with_topics(folder / "kafka", 1))
        collector = stack.enter_context(routing_collector(folder, broker))
        services: dict[str, Classifier] = {}
        for name in SERVICES:
            settings = {
                "OTEL_SERVICE_NAME": name,
                "OTEL_RESOURCE_ATTRIBUTES": f"host.name=host-{name}",
                "QUANTMON_REFERENCE": "remote",
                "QUANTMON_REFERENCE_BUDGET": "0.5",
                "QUANTMON_REMOTE_INTERVAL": "1ms",
                "OTEL_BLRP_SCHEDULE_DELAY": "200",
                "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
            }
            services[name] = stack.enter_context(classifier(folder / name, collector.otlp_grpc, settings))
        running = Chain(folder, broker, collector, services, more, _stack=stack)
        for name in WORKERS:
            running.start(name)
        yield running
