"""A sample as it leaves the process: what was called, with which tensors, in which trace, in one string of bytes.

Eight bytes that name the form, its version in two, the CRC-32 of the rest in four, then one frame of Zstandard (RFC
8878). In it is a message as the reference's process gets it: JSON and raw tensors.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from otel_quantmon.fidelity.reference.evaluation import unpacked_facts
from otel_quantmon.fidelity.reference.messages import MessageError, from_bytes, to_bytes
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = [
    "FORMAT",
    "LARGEST",
    "SampleError",
    "SampleRecord",
    "decode",
    "encodable",
    "encode",
    "is_sample",
    "is_sample_id",
]

FORMAT = 1
"""Version of the form. A reader refuses any other: those that come may mean other things by the same fields."""

LARGEST = 256 * 1024**2
"""Bytes of a sample, decompressed, that are read at most: a record from outside is not to fill the memory."""

_MAGIC = b"QMSAMPLE"
_HEAD = struct.Struct("<8sHI")
_ID_LENGTH = 32

# Faster than a model runs on the same tensors; higher levels gain a few percent on activations.
_LEVEL = 3


class SampleError(Exception):
    """Bytes that are no sample, or one of another version; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """One sampled call.

    Attributes:
        id: 32 hexadecimal digits, the same however often the sample arrives.
        model, runtime, scheme, provider: Values of `semconv.MODEL_ATTRIBUTES`.
        digest, version: Digest and version of the quantized model, None where not known.
        host, service: Names of the host and of the service, by the resource that it reports with.
    instructions: Instruction sets of the host's CPU, as `quantmon.cpu.isa` has them.
    golden: True if the inputs are those of a golden baseline, which are the same on every host.
        time: Time of the call, nanoseconds since the epoch.
        trace_id, span_id: Identities of the call's span, 0 if it has none that is sampled.
        inputs, outputs: Tensors by name, in the model's order.
        facts: Facts of these tensors.
    """

    id: str
    model: str
    runtime: str
    scheme: str
    provider: str
    digest: str | None
    version: str | None
    host: str
    service: str
    instructions: str
    golden: bool
    time: int
    trace_id: int
    span_id: int
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    facts: tuple[TensorFacts, ...]


_TEXTS = ("id", "model", "runtime", "scheme", "provider", "host", "service", "instructions")
_MAYBE_TEXTS = ("digest", "version")
_NUMBERS = {"time": 63, "trace_id": 128, "span_id": 64}


def is_sample_id(text: object) -> bool:
    """Return True for what `SampleRecord.id` may be, which is then safe as the name of a file."""
    return isinstance(text, str) and len(text) == _ID_LENGTH and not set(text) - set("0123456789abcdef")


def encodable(text: str) -> str:
    """Return ``text`` with what UTF-8 has no bytes for replaced by question marks.

    Python reads bytes of another encoding in an environment variable as lone surrogates, and JSON may spell them.
    Databases and files refuse them.
    """
    return text.encode("utf-8", "replace").decode()


def is_sample(data: bytes) -> bool:
    """Return True for what begins as a sample does, of any version."""
    return data.startswith(_MAGIC)


def encode(record: SampleRecord) -> bytes:
    """Return ``record`` as bytes.

    Raises:
        TypeError: An input or an output is neither a tensor nor a sequence or map of them.
    """
    import zstandard  # of the extra `remote`

    message = {
        **{field.name: getattr(record, field.name) for field in fields(record)},
        "facts": [asdict(facts) for facts in record.facts],
    }
    # The frame's own checksum is not looked at by every way of decompressing.
    frame = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(to_bytes(message))
    return _HEAD.pack(_MAGIC, FORMAT, zlib.crc32(frame)) + frame


def decode(data: bytes) -> SampleRecord:
    """Return what `encode` was given.

    Raises:
        SampleError: Whatever is wrong with ``data``.
    """
    import zstandard

    if len(data) < _HEAD.size:
        raise SampleError(f"it has {len(data)} bytes, and is no sample")
    magic, version, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise SampleError("it does not begin as a sample does")
    if version != FORMAT:
        raise SampleError(
            f"it is of version {version}, this release reads {FORMAT}: evaluate it with the release that wrote it"
        )
    frame = data[_HEAD.size :]
    if zlib.crc32(frame) != checksum:
        raise SampleError("it is damaged: its checksum is another")
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= LARGEST:
            raise SampleError(f"it would have {size} bytes, and {LARGEST} are read at most")
        message = from_bytes(zstandard.ZstdDecompressor().decompress(frame))
    except (zstandard.ZstdError, MessageError) as error:
        raise SampleError(f"it is damaged: {error}") from error
    return _checked(message)


def _checked(message: Any) -> SampleRecord:
    wanted = {field.name for field in fields(SampleRecord)}
    values = cast("dict[str, Any]", message)
    if not isinstance(message, dict) or set(values) != wanted:
        raise SampleError("its fields are not those of a sample")
    wrong = [name for name in _TEXTS if not isinstance(values[name], str)]
    wrong += [name for name in _MAYBE_TEXTS if not isinstance(values[name], (str, type(None)))]
    wrong += [name for name, bits in _NUMBERS.items() if not _is_number(values[name], bits)]
    wrong += [name for name in ("inputs", "outputs") if not _is_by_name(values[name])]
    wrong += [name for name in ("golden",) if not isinstance(values[name], bool)]
    if wrong or not is_sample_id(values["id"]):
        raise SampleError(f"its fields are not those of a sample: {', '.join(wrong or ['id'])}")
    facts = cast("list[dict[str, Any]]", values["facts"])
    if not isinstance(values["facts"], list) or not all(map(_is_facts, facts)):
        raise SampleError("its facts of tensors cannot be read")
    texts = {name: encodable(values[name]) for name in (*_TEXTS, *_MAYBE_TEXTS) if values[name] is not None}
    checked: dict[str, Any] = {**values, **texts, "facts": tuple(map(unpacked_facts, facts))}
    return SampleRecord(**checked)


def _is_facts(value: object) -> bool:
    """True for what `unpacked_facts` makes `TensorFacts` of whose fields have the types that they say."""
    if not _has(value, "name", "dtype", "shape", "quantization"):
        return False
    facts = cast("dict[str, Any]", value)
    shape = facts["shape"]
    return (
        isinstance(facts["name"], str)
        and isinstance(facts["dtype"], str)
        and (shape is None or (_is_list(shape) and all(size is None or _is_whole(size) for size in shape)))
        and (facts["quantization"] is None or _is_quantization(facts["quantization"]))
    )


def _is_quantization(value: object) -> bool:
    if not _has(value, "scales", "zero_points", "dtype", "axis"):
        return False
    parameters = cast("dict[str, Any]", value)
    scales, zero_points, axis = parameters["scales"], parameters["zero_points"], parameters["axis"]
    return (
        (_is_list(scales) and all(isinstance(one, float) or _is_whole(one) for one in scales))
        and (_is_list(zero_points) and all(map(_is_whole, zero_points)))
        and isinstance(parameters["dtype"], str)
        and (axis is None or _is_whole(axis))
    )


def _has(value: object, *names: str) -> bool:
    return isinstance(value, dict) and all(name in value for name in names)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_whole(value: object) -> bool:
    # No dimension, zero point or axis has more than these, and what has more does not fit into an array.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_number(value: object, bits: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << bits


def _is_by_name(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) for name in cast("Mapping[object, object]", value)
    )
