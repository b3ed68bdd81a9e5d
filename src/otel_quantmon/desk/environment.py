"""The environment of an application under ``quantmon run``, and where it would have sent its telemetry itself.

It is what ``opentelemetry-instrument`` makes, with exporters that lead to the receiver. Names and meanings:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, NamedTuple
from urllib.parse import unquote

from otel_quantmon.desk.messages import SIGNALS, Signal
from otel_quantmon.errors import DeskError

__all__ = ["Destination", "child_environment", "destinations"]

_OTLP = "OTEL_EXPORTER_OTLP_"
# Of an exporter, for all signals or for one. Ours speaks plain HTTP to this host.
_OPTIONS = (
    *("ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "TIMEOUT", "INSECURE"),
    *("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"),
)
_EXPORTERS = {"otlp", "otlp_proto_http", "otlp_proto_grpc"}
_MILLISECONDS = {
    "OTEL_METRIC_EXPORT_INTERVAL": 1000,
    "OTEL_BSP_SCHEDULE_DELAY": 1000,
    "OTEL_BLRP_SCHEDULE_DELAY": 500,
}
"""How often is exported, so that a view is alive; more often if the application asks for it."""


class Destination(NamedTuple):
    """An OTLP endpoint of the application's own, for one signal.

    Attributes:
        url: Address: with the path for HTTP; host and port for gRPC, with the scheme that was given.
        protocol: ``http`` or ``grpc``.
        headers: Headers to send with each request.
        gzip: True if it asks for compression.
        secure: True if gRPC goes over TLS.
        certificate, client_key, client_certificate: Files for TLS, None for the system's and none.
    """

    url: str
    protocol: Literal["http", "grpc"]
    headers: Mapping[str, str]
    gzip: bool
    secure: bool
    certificate: str | None
    client_key: str | None
    client_certificate: str | None


def destinations(environment: Mapping[str, str]) -> dict[Signal, Destination]:
    """Where ``environment`` would have each signal sent; a signal without an endpoint is left out."""
    found: dict[Signal, Destination] = {}
    for signal in SIGNALS:
        destination = _destination(signal, environment)
        if destination is not None:
            found[signal] = destination
    return found


def child_environment(
    environment: Mapping[str, str], address: str, settings: Mapping[str, str], *, forwarded: bool
) -> dict[str, str]:
    """The environment of the application.

    Args:
        environment: Environment of the command.
        address: Address of the receiver.
        settings: Variables of otel-quantmon that the command line gives.
        forwarded: True if metrics go on to an endpoint of the application's own, which gets them in the temporality
            that it asks for. Else they are sent as differences, of which no forked process repeats its parent's.

    Raises:
        DeskError: OpenTelemetry's zero-code instrumentation is not installed.
    """
    child = {**environment, **settings}
    for signal in ("", *(f"{signal.upper()}_" for signal in SIGNALS)):
        for option in _OPTIONS:
            child.pop(f"{_OTLP}{signal}{option}", None)
    child.pop("OTEL_SDK_DISABLED", None)
    child[f"{_OTLP}ENDPOINT"] = address
    child[f"{_OTLP}PROTOCOL"] = "http/protobuf"
    for signal in SIGNALS:
        others = [name for name in _exporters(signal, environment) if name not in {*_EXPORTERS, "none"}]
        child[f"OTEL_{signal.upper()}_EXPORTER"] = ",".join([*others, "otlp"])
    for name, most in _MILLISECONDS.items():
        given = environment.get(name, "")
        child[name] = str(min(most, int(given)) if given.isdecimal() and int(given) else most)
    if not forwarded:
        child[f"{_OTLP}METRICS_TEMPORALITY_PREFERENCE"] = "delta"
    for name in ("NO_PROXY", "no_proxy"):
        child[name] = ",".join(filter(None, [environment.get(name, ""), "127.0.0.1"]))
    child["PYTHONPATH"] = _python_path(environment.get("PYTHONPATH", ""))
    return child


def _python_path(given: str) -> str:
    """As ``opentelemetry-instrument`` sets it: first the folder of its ``sitecustomize``, then the current one."""
    spec = find_spec("opentelemetry.instrumentation.auto_instrumentation")
    if spec is None or spec.origin is None:
        raise DeskError(
            "the package opentelemetry-instrumentation is missing: pip install 'otel-quantmon[otlp]'"
        )
    folder = os.path.dirname(spec.origin)
    paths = [path for path in given.split(os.pathsep) if path and path != folder]
    # Of a folder that has been deleted nothing could be imported.
    with contextlib.suppress(FileNotFoundError):
        current = os.getcwd()
        paths = paths if current in paths else [current, *paths]
    return os.pathsep.join([folder, *paths])


def _exporters(signal: Signal, environment: Mapping[str, str]) -> list[str]:
    exporters = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")
    return [name.strip() for name in exporters if name.strip()]


def _destination(signal: Signal, environment: Mapping[str, str]) -> Destination | None:
    def option(name: str) -> str | None:
        for variable in (f"{_OTLP}{signal.upper()}_{name}", _OTLP + name):
            if environment.get(variable, "").strip():
                return environment[variable].strip()
        return None

    endpoint, exporters = option("ENDPOINT"), _exporters(signal, environment)
    if endpoint is None or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if exporters and not _EXPORTERS & set(exporters):
        return None
    # The distribution of OpenTelemetry for Python takes gRPC if nothing else is said.
    grpc = (option("PROTOCOL") or "grpc") == "grpc"
    if "otlp_proto_http" in exporters:
        grpc = False
    own = environment.get(f"{_OTLP}{signal.upper()}_ENDPOINT", "").strip()
    if not grpc and not own:
        endpoint = f"{endpoint.rstrip('/')}/v1/{signal}"
    insecure = (option("INSECURE") or "").lower() == "true"
    return Destination(
        endpoint,
        "grpc" if grpc else "http",
        _headers(option("HEADERS") or ""),
        option("COMPRESSION") == "gzip",
        endpoint.startswith("https://") or not (endpoint.startswith("http://") or insecure),
        option("CERTIFICATE"),
        option("CLIENT_KEY"),
        option("CLIENT_CERTIFICATE"),
    )


def _headers(text: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in text.split(","))
    return {unquote(name.strip()).lower(): unquote(value.strip()) for name, equals, value in pairs if equals}
