"""The backends, each started with its shipped file of ``collector-config/``, and their query APIs."""

from __future__ import annotations

import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stack.programs import binary, kafka_jars
from stack.running import Process, free_ports, get_json, get_text, running

SHIPPED: Final = Path(__file__).parents[2] / "collector-config"


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger: where OTLP goes in (host:port), and its query API."""

    process: Process
    otlp: str
    query: str

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """All spans of a trace as Jaeger's API gives them, with their tags as a dict.

        Raises:
            OSError: Jaeger has no such trace (yet).
        """
        trace = get_json(f"{self.query}/api/traces/{trace_id}")["data"][0]
        return [
            {**span, "tags": {tag["key"]: tag["value"] for tag in span["tags"]}} for span in trace["spans"]
        ]


@contextmanager
def jaeger(directory: Path, otlp: str | None = None) -> Iterator[Jaeger]:
    """Run Jaeger with ``jaeger.yaml``, taking OTLP at an address (host:port) of one's own or at a free one."""
    free, health, query, query_grpc = (f"127.0.0.1:{port}" for port in free_ports(4))
    otlp = otlp or free
    environment = {
        "JAEGER_OTLP": otlp,
        "JAEGER_HEALTH": health,
        "JAEGER_QUERY": query,
        "JAEGER_QUERY_GRPC": query_grpc,
    }
    command = [binary("jaeger"), f"--config={SHIPPED / 'jaeger.yaml'}"]
    with running(command, directory, environment=environment, ready=f"http://{health}/status") as process:
        yield Jaeger(process, otlp, f"http://{query}")


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus and its HTTP API."""

    process: Process
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression: a list of ``{"metric": labels, "value": [time, text]}``."""
        return self._get("query", query=expression)["result"]

    def value(self, expression: str) -> float | None:
        """The only sample's value, or None where there is no sample.

        Raises:
            AssertionError: there are several.
        """
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return float(samples[0]["value"][1]) if samples else None

    def exemplars(self, selector: str, start: float, end: float) -> list[dict[str, Any]]:
        """Exemplars of the selected series, in the time from start to end (seconds since the epoch)."""
        found = self._get("query_exemplars", query=selector, start=str(start), end=str(end))
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of an expression: a list of ``{"metric": labels, "values": [[time, text], …]}``."""
        parameters = {"start": str(start), "end": str(end), "step": str(step)}
        return self._get("query_range", query=expression, **parameters)["result"]

    def alerts(self) -> dict[str, str]:
        """The state, pending or firing, of each active alert by its name."""
        active = get_json(f"{self.url}/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert["state"] for alert in active}

    def _get(self, path: str, **parameters: str) -> Any:
        return get_json(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")["data"]


@contextmanager
def prometheus(
    directory: Path, *, targets: Mapping[str, str] | None = None, configuration: Path = SHIPPED / "prometheus"
) -> Iterator[Prometheus]:
    """Run Prometheus with ``prometheus/prometheus.yml`` and its rules.

    Args:
        directory: gets a copy of the configuration, since the addresses are files beside it, and the data.
        targets: host:port by the name of the file in ``targets/``; those not named are empty.
        configuration: another directory of the same form.
    """
    port = free_ports(1)[0]
    copied = directory / "configuration"
    shutil.copytree(configuration, copied)
    known = {"prometheus": f"127.0.0.1:{port}", **(targets or {})}
    for file in (copied / "targets").glob("*.yml"):
        file.write_text(f'- targets: ["{known[file.stem]}"]\n' if file.stem in known else "[]\n")
    command = [
        binary("prometheus"),
        f"--config.file={copied / 'prometheus.yml'}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={directory / 'data'}",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, directory, ready=f"{url}/-/ready") as process:
        yield Prometheus(process, url)


@dataclass(frozen=True)
class Kafka:
    """A running broker: its process, its address (host:port), and that with TLS and a password, or ""."""

    process: Process
    address: str
    secured: str = ""


@dataclass(frozen=True)
class Login:
    """How clients come to a broker's secured address: SCRAM-SHA-512 over TLS.

    Attributes:
        key_and_certificate: the broker's, as a file of PEM with its key in PKCS #8.
    """

    key_and_certificate: Path
    username: str
    password: str


@contextmanager
def kafka(directory: Path, *, shares: bool = True, login: Login | None = None) -> Iterator[Kafka]:
    """Run one Kafka broker, its own controller (KRaft); with share groups, or without as brokers before 4.2."""
    broker, controller, secured = (f"127.0.0.1:{port}" for port in free_ports(3))
    directory.mkdir(parents=True)
    listeners = f"PLAINTEXT://{broker},CONTROLLER://{controller}"
    properties = directory / "server.properties"
    properties.write_text(
        f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
listeners={listeners if login is None else f"{listeners},SASL_SSL://{secured}"}
log.dirs={directory / "data"}
num.partitions=3
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.share.min.record.lock.duration.ms=1000
group.share.record.lock.duration.ms=5000
group.initial.rebalance.delay.ms=0
"""
    )
    java = ["java", "-Xmx512m", "-cp", f"{kafka_jars()}/*"]
    cluster = "4L6g3nShT-eMCtK--X86sw"
    formatting = ["format", f"--cluster-id={cluster}", f"--config={properties}"]
    formatting += [] if shares else ["--feature=share.version=0"]
    if login is not None:
        with properties.open("a") as file:
            file.write(
                f"""listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={_SCRAM} required;
ssl.keystore.type=PEM
ssl.keystore.location={login.key_and_certificate}
"""
            )
        formatting += ["--add-scram", f"SCRAM-SHA-512=[name={login.username},password={login.password}]"]
    subprocess.run([*java, "kafka.tools.StorageTool", *formatting], check=True, capture_output=True)
    with running([*java, "kafka.Kafka", properties], directory, ready=f"tcp://{broker}") as process:
        yield Kafka(process, broker, "" if login is None else secured)


_SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True)
class Alertmanager:
    """A running Alertmanager: its process and its address (host:port)."""

    process: Process
    address: str


@contextmanager
def alertmanager(
    directory: Path, receivers: Mapping[str, str], *, configuration: Path
) -> Iterator[Alertmanager]:
    """Run Alertmanager with ``alertmanager.yml``.

    Args:
        directory: gets a copy of the configuration, since the receivers' addresses are files beside it.
        receivers: URL by the name of the receiver.
        configuration: the directory of the file.
    """
    address, copied = f"127.0.0.1:{free_ports(1)[0]}", directory / "configuration"
    shutil.copytree(configuration, copied)
    for name, url in receivers.items():
        (copied / "targets" / f"{name}-url").write_text(url)
    command = [
        binary("alertmanager"),
        "--config.file=alertmanager.yml",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        f"--storage.path={directory / 'data'}",
    ]
    with running(command, copied, ready=f"http://{address}/-/ready") as process:
        yield Alertmanager(process, address)


@dataclass(frozen=True)
class Collector:
    """A running Collector: its process and the addresses (host:port) of what it opened."""

    process: Process
    otlp_grpc: str
    otlp_http: str
    prometheus: str
    metrics: str

    def own_metric(self, name: str, **labels: str) -> float:
        """The sum of one of the Collector's own metrics over the series that have these labels."""
        total = 0.0
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in get_text(f"http://{self.metrics}/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                total += float(value)
        return total


@contextmanager
def collector(
    directory: Path,
    *configurations: str,
    environment: Mapping[str, str] | None = None,
    state: Path | None = None,
) -> Iterator[Collector]:
    """Run the Collector.

    Args:
        directory: for its state and its log.
        configurations: files of ``collector-config/``, or ``yaml:…`` overrides, merged in order.
        environment: for the shipped files' variables, beyond the addresses that the Collector itself opens.
        state: where it keeps its queues; by default in ``directory``.
    """
    grpc, http, health, exposed, own = free_ports(5)
    local = {
        "OTELCOL_OTLP_GRPC": f"127.0.0.1:{grpc}",
        "OTELCOL_OTLP_HTTP": f"127.0.0.1:{http}",
        "OTELCOL_HEALTH": f"127.0.0.1:{health}",
        "OTELCOL_PROMETHEUS": f"127.0.0.1:{exposed}",
        "OTELCOL_METRICS_PORT": str(own),
        "OTELCOL_STATE_DIR": str(state or directory / "state"),
    }
    command = [binary("otelcol")]
    for configuration in configurations:
        named = configuration if ":" in configuration else SHIPPED / configuration
        command.append(f"--config={named}")
    ready = f"http://127.0.0.1:{health}/"
    with running(command, directory, environment={**local, **(environment or {})}, ready=ready) as process:
        yield Collector(
            process,
            local["OTELCOL_OTLP_GRPC"],
            local["OTELCOL_OTLP_HTTP"],
            local["OTELCOL_PROMETHEUS"],
            f"127.0.0.1:{own}",
        )
