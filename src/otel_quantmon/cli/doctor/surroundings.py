"""What is installed here, what of it would be instrumented, which settings hold, and what answers."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from otel_quantmon.package import ONNXRUNTIME_DISTRIBUTIONS, TFLITE_DISTRIBUTIONS
from otel_quantmon.settings.loading import load_settings, setting_sources
from otel_quantmon.settings.table import Place, settings_at

__all__ = ["Endpoint", "Runtime", "Setting", "disabled", "endpoints", "packages", "runtimes", "settings"]

_PACKAGES = (
    "otel-quantmon",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-distro",
    "opentelemetry-instrumentation",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-proto-grpc",
    "wrapt",
    "numpy",
)
_SIGNALS = ("traces", "metrics", "logs")
_SECONDS = 2.0


class Runtime(NamedTuple):
    """A distribution of a runtime, and why it would not be instrumented; empty if it would be."""

    distribution: str
    version: str
    why_not: str


class Setting(NamedTuple):
    """A setting in force, and where it comes from."""

    name: str
    value: Any
    source: str


class Endpoint(NamedTuple):
    """Where a signal goes: an address and why it does not answer, empty if it does; or another exporter."""

    signal: str
    exporter: str
    address: str
    why_not: str


def packages() -> dict[str, str | None]:
    """Versions by distribution, None for one that is not installed."""
    return {name: _version(name) for name in _PACKAGES}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def runtimes(environment: Mapping[str, str]) -> list[Runtime]:
    """Those that are installed."""
    disabled = {
        name.strip() for name in environment.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    }
    found: list[Runtime] = []
    for entry_point, distributions in (
        ("onnxruntime", ONNXRUNTIME_DISTRIBUTIONS),
        ("tflite", TFLITE_DISTRIBUTIONS),
    ):
        for requirement in distributions:
            name, oldest = requirement.split(" >= ")
            version = _version(name)
            if version is None:
                continue
            why_not = ""
            if entry_point in disabled or "*" in disabled:
                why_not = f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names {entry_point}"
            elif _numbers(version) < _numbers(oldest):
                why_not = f"it is older than {oldest}"
            found.append(Runtime(name, version, why_not))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def settings(environment: Mapping[str, str]) -> tuple[list[Setting], list[str]]:
    """Those that are given, and what is wrong with them."""
    logger, told = logging.getLogger("otel_quantmon"), _Kept()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(told)
    try:
        found = load_settings(environment)
        sources = setting_sources(environment)
    finally:
        logger.removeHandler(told)
        logger.propagate = before
    # The file itself is no field of what was read from it.
    values = {name: getattr(found, name, None) for name in settings_at(Place.ENVIRONMENT)}
    given = [Setting(name, values.get(name), sources[name]) for name in values if name in sources]
    sections = [
        Setting(f'models."{pattern}"', dict(section), str(values.get("config")))
        for pattern, section in found.models.items()
    ]
    return given + sections, told.lines


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def endpoints(environment: Mapping[str, str]) -> list[Endpoint]:
    """Where ``opentelemetry-instrument`` would send each signal, and whether somebody listens there."""
    answers: dict[tuple[str, int], str] = {}
    found: list[Endpoint] = []
    for signal in _SIGNALS:
        exporter = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() or "otlp"
        if "otlp" not in exporter:
            found.append(Endpoint(signal, exporter, "", ""))
            continue
        grpc = _option(environment, signal, "PROTOCOL", "grpc") == "grpc" and exporter != "otlp_proto_http"
        address = _option(
            environment, signal, "ENDPOINT", "http://localhost:4317" if grpc else "http://localhost:4318"
        )
        package = f"opentelemetry.exporter.otlp.proto.{'grpc' if grpc else 'http'}"
        if not _has(package):
            found.append(Endpoint(signal, exporter, address, f"the package of {package} is not installed"))
            continue
        try:
            place = _place(address, 4317 if grpc else 80)
        except ValueError as error:
            found.append(Endpoint(signal, exporter, address, f"{address} is no address: {error}"))
            continue
        if place not in answers:
            answers[place] = _why_silent(place)
        found.append(Endpoint(signal, exporter, address, answers[place]))
    return found


def _place(address: str, port: int) -> tuple[str, int]:
    """Host and port of an address; ``port`` is that of an address without one.

    Raises:
        ValueError: It is no address.
    """
    url = urlsplit(address if "//" in address else f"//{address}")
    return url.hostname or "localhost", url.port or (443 if url.scheme == "https" else port)


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _option(environment: Mapping[str, str], signal: str, option: str, default: str) -> str:
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}", f"OTEL_EXPORTER_OTLP_{option}"):
        if environment.get(name, "").strip():
            return environment[name].strip()
    return default


def _why_silent(place: tuple[str, int]) -> str:
    try:
        socket.create_connection(place, _SECONDS).close()
    except OSError as error:
        return f"{place[0]}:{place[1]} does not answer: {error.strerror or error}"
    except UnicodeError as error:
        return f"{place[0]!r} is no name of a host: {error}"
    return ""


def disabled(environment: Mapping[str, str]) -> str:
    """What switches everything off; empty if nothing does."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "OTEL_SDK_DISABLED=true switches everything off"
    return ""
