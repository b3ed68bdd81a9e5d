"""The golden baseline: what a model gave when it was known to be right, in one file.

A safetensors file that any tool can open. Its tensors are ``inputs/<case>/<name>``,
``references/<case>/<name>`` and ``outputs/<case>/<name>``; everything else is JSON under the metadata keys
below. A checksum over the whole file distinguishes damage from drift: a flipped bit in a reference output would
otherwise read as an error of the model.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.errors import CommandError
from otel_quantmon.fidelity.baseline.safetensors import SafetensorsError, decode, encode, header_bytes
from otel_quantmon.models.formats.source import open_regular

__all__ = [
    "FORMAT_VERSION",
    "MAX_BASELINE_BYTES",
    "Baseline",
    "BaselineError",
    "Case",
    "Environment",
    "InputStatistics",
    "LatencyStatistics",
    "OutputStatistics",
    "read_baseline",
    "write_baseline",
]

FORMAT = "otel-quantmon baseline"
FORMAT_VERSION = 1

MAX_BASELINE_BYTES = 1 << 30
"""A baseline is kept in memory while it is replayed."""

_NO_CHECKSUM = "0" * 64
# An unescaped quote cannot stand inside a JSON string, so this is the key and nothing that looks like it.
_CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})"')
# Types that safetensors has no name for in every version, stored unpacked in one byte.
_STORED_AS = {"int4": np.dtype(np.int8), "uint4": np.dtype(np.uint8)}


class BaselineError(CommandError, ValueError):
    """A baseline could not be read or written; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Case:
    """One call: its inputs, what the quantized model gave, and the float reference if there was one."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    references: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])


@dataclass(frozen=True, slots=True)
class OutputStatistics:
    """Of one output, a value for each case that gave a sample.

    Attributes:
        reference_norms: ‖f‖₂, in the output's unit; their median decides what is degenerate.
        relative_errors, cosine_similarities: Distances from the reference; thresholds follow from them.
        disagreements: Shares of rows; empty without an axis of classes.
        minimum, maximum: Extremes of the finite elements over all cases, None without any.
    """

    reference_norms: tuple[float, ...] = ()
    relative_errors: tuple[float, ...] = ()
    cosine_similarities: tuple[float, ...] = ()
    disagreements: tuple[float, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """Of one input: shares for each case, extremes over all."""

    clip_ratios: tuple[float, ...] = ()
    range_uses: tuple[float, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class LatencyStatistics:
    """Of `count` calls after warm-up, in seconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Environment:
    """Where the baseline was recorded: what explains a host that computes differently."""

    runtime: str
    runtime_version: str
    providers: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """All that a baseline file holds.

    Attributes:
        model: ``quantmon.model.name``.
        digest: Digest of the quantized model's file.
        reference_digest: Digest of the float model's file, None without one.
        environment: Environment that it was recorded in.
        cases: The recorded calls, in order.
        output_statistics, input_statistics: Statistics by tensor name.
        latency: None if it was not measured.
    """

    model: str
    digest: str
    environment: Environment
    cases: tuple[Case, ...]
    reference_digest: str | None = None
    output_statistics: Mapping[str, OutputStatistics] = field(default_factory=dict[str, OutputStatistics])
    input_statistics: Mapping[str, InputStatistics] = field(default_factory=dict[str, InputStatistics])
    latency: LatencyStatistics | None = None


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline so that `path` holds the old file or the new one, whole, whatever happens meanwhile.

    Tensors are numbers or booleans of the types safetensors has, bfloat16 included; 4-bit integers of
    ml_dtypes are stored one to a byte. Strings, objects and complex numbers are not stored.

    Raises:
        BaselineError: A tensor's type cannot be stored, a statistic is not finite, or the file would be
            larger than `MAX_BASELINE_BYTES`.
        OSError: The file cannot be written.
    """
    tensors: dict[str, NDArray[Any]] = {}
    dtypes: dict[str, str] = {}
    for number, case in enumerate(baseline.cases):
        if not case.outputs:
            raise BaselineError(
                f"case {number} of the baseline of {baseline.model!r} has no output: leave it out"
            )
        roles = {"inputs": case.inputs, "references": case.references, "outputs": case.outputs}
        for role, arrays in roles.items():
            for name, array in arrays.items():
                key = f"{role}/{number}/{name}"
                if array.dtype.name in _STORED_AS:
                    dtypes[key] = array.dtype.name
                tensors[key] = array.astype(_STORED_AS.get(array.dtype.name, array.dtype), copy=False)
    contents = {
        "model": {
            "name": baseline.model,
            "digest": baseline.digest,
            "reference_digest": baseline.reference_digest,
        },
        "environment": asdict(baseline.environment),
        "output_statistics": {name: asdict(value) for name, value in baseline.output_statistics.items()},
        "input_statistics": {name: asdict(value) for name, value in baseline.input_statistics.items()},
        "latency": asdict(baseline.latency) if baseline.latency else None,
        "dtypes": dtypes,
    }
    try:
        metadata = {key: json.dumps(value, allow_nan=False) for key, value in contents.items()}
        metadata = {
            "format": FORMAT,
            "version": str(FORMAT_VERSION),
            "checksum": _NO_CHECKSUM,
            **metadata,
        }
        header, data = encode(tensors, metadata)
    except ValueError as error:
        raise BaselineError(f"the baseline of {baseline.model!r} cannot be written: {error}") from error
    size = len(header) + sum(map(len, data))
    if size > MAX_BASELINE_BYTES:
        raise BaselineError(
            f"the baseline of {baseline.model!r} would take {size} bytes, "
            f"over the limit of {MAX_BASELINE_BYTES}: record fewer than {len(baseline.cases)} cases"
        )
    digest = hashlib.sha256(header)
    for content in data:
        digest.update(content)
    header = header.replace(_NO_CHECKSUM.encode(), digest.hexdigest().encode(), 1)
    _write_atomically(path, [header, *data])


def read_baseline(path: Path) -> Baseline:
    """Read a baseline, or refuse it.

    Returns:
        Its arrays are read-only and share one buffer. bfloat16 and 4-bit integers are of ml_dtypes' types
        where that is installed, else float32 and int8 or uint8 of the same values.

    Raises:
        BaselineError: The file is missing, damaged, truncated, not a baseline, too large, or of a newer
        version.
    """
    content = _read(path)
    try:
        tensors, metadata = decode(content)
    except SafetensorsError as error:
        raise BaselineError(
            f"{path} is damaged, truncated or no baseline: {error}; copy it again or record a new one"
        ) from None
    if metadata.get("format") != FORMAT:
        raise BaselineError(
            f"{path} is a safetensors file but no baseline; record one for the model and use that"
        )
    version = metadata.get("version", "")
    if version != str(FORMAT_VERSION):
        raise BaselineError(
            f"{path} is of version {version[:20]!r}, this otel-quantmon reads version {FORMAT_VERSION}: "
            "upgrade otel-quantmon, or record the baseline again with this one"
        )
    if not _checksum_holds(content):
        raise BaselineError(
            f"{path} is damaged: its checksum does not hold; copy it again or record a new one"
        )
    try:
        plain = ("format", "version", "checksum")
        return _baseline(
            tensors, {key: json.loads(value) for key, value in metadata.items() if key not in plain}
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BaselineError(f"{path} is incomplete ({error!r}): record a new one") from error


def _baseline(tensors: Mapping[str, NDArray[Any]], contents: Mapping[str, Any]) -> Baseline:
    cases: dict[int, dict[str, dict[str, NDArray[Any]]]] = {}
    for key, array in tensors.items():
        role, number, name = key.split("/", 2)
        case = cases.setdefault(int(number), {"inputs": {}, "outputs": {}, "references": {}})
        case[role][name] = _restored(array, contents["dtypes"].get(key))
    model, latency = contents["model"], contents["latency"]
    return Baseline(
        model=model["name"],
        digest=model["digest"],
        reference_digest=model["reference_digest"],
        environment=Environment(**_tuples(contents["environment"])),
        cases=tuple(Case(**cases[number]) for number in sorted(cases)),
        output_statistics={
            name: OutputStatistics(**_tuples(value)) for name, value in contents["output_statistics"].items()
        },
        input_statistics={
            name: InputStatistics(**_tuples(value)) for name, value in contents["input_statistics"].items()
        },
        latency=LatencyStatistics(**latency) if latency else None,
    )


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields as they were, JSON having made lists of its tuples."""
    return {
        key: value if value is None or isinstance(value, (str, float)) else tuple(value)
        for key, value in record.items()
    }


def _restored(array: NDArray[Any], dtype: str | None) -> NDArray[Any]:
    if dtype in _STORED_AS:
        with contextlib.suppress(ImportError):
            import ml_dtypes

            return array.astype(ml_dtypes.int4 if dtype == "int4" else ml_dtypes.uint4)
    return array


def _checksum_holds(content: bytes) -> bool:
    header = header_bytes(content)
    found = _CHECKSUM.search(header)
    if found is None:
        return False
    start, end = found.span(1)
    digest = hashlib.sha256(header[:start] + _NO_CHECKSUM.encode() + header[end:])
    digest.update(memoryview(content)[len(header) :])
    return digest.hexdigest().encode() == found[1]


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            if file.size > MAX_BASELINE_BYTES:
                raise BaselineError(
                    f"{path} is over the limit of {MAX_BASELINE_BYTES} bytes: record fewer cases"
                )
            return file.read(0, file.size)
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be read: {error.strerror}; give the path of a baseline"
        ) from error


def _write_atomically(path: Path, parts: list[bytes]) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        # A device or a pipe, which a new file in its place would take away from everybody.
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    # A link stays one.
    path = Path(os.path.realpath(path))
    # Next to its place, since only within one file system is a rename atomic.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
