"""KServe's logger as a source: request and response of each call, as CloudEvents over HTTP, put together to samples.

Both have the same identity. The logger sends them on their own, in any order, and the response of a call that failed
perhaps never. So halves wait for each other for a while; a pair is a file of the directory before it is answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic, time_ns
from typing import Any, NamedTuple

from otel_quantmon import semconv
from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.kserve_payload import Payload, PayloadError, read_payload
from otel_quantmon.evaluator.receiving import Receiver, ReceivingSource, RefusedError
from otel_quantmon.evaluator.source import Claimed
from otel_quantmon.fidelity.remote.record import SampleRecord, encodable, encode
from otel_quantmon.fidelity.remote.spool import Spool

__all__ = ["KServeSource", "Pairs"]

_REQUEST, _RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"

# Seconds for which one half waits for the other, and how many and how large those that wait may be.
_WAIT = 60.0
_MOST_WAITING = 10_000
_MOST_BYTES = 256 * 1024**2

Count = Callable[[semconv.ReferenceOutcome], object]


class _Half(NamedTuple):
    response: bool
    payload: Payload
    size: int
    at: float
    time: int
    trace: tuple[int, int]


class Pairs:
    """Puts requests and responses together. For any thread.

    Args:
        keep: Keeps a sample under its identity; False if too many wait.
        count: Counts what becomes of no sample: ``rejected`` (not readable), ``failed`` (the call), ``unpaired``,
            ``dropped_bytes`` (too many bytes wait), ``dropped_queue``.
    """

    def __init__(self, keep: Callable[[str, bytes], bool], count: Count) -> None:
        self._keep = keep
        self._count = count
        self._waiting: OrderedDict[tuple[str, str, str], _Half] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._keeping = threading.Lock()

    def add(self, attributes: Mapping[str, str], body: bytes, peer: str) -> None:
        """Take one event.

        Args:
            attributes: Attributes and extensions of the event, by their names in lower case.
            body: Its data.
            peer: Address that it came from.

        Raises:
            RefusedError: It is none of KServe's, or cannot be read.
            OSError: The sample cannot be kept. It can be when this half is sent again.
        """
        kind, identity = attributes.get("type"), attributes.get("id", "")
        service = attributes.get("inferenceservicename", "")
        if kind not in (_REQUEST, _RESPONSE) or not identity or not service:
            self._count("rejected")
            raise RefusedError(400, "it is no inference request or response of KServe's logger")
        key = attributes.get("namespace", ""), service, identity
        if any(encodable(part) != part for part in key):
            self._count("rejected")
            raise RefusedError(400, "it is named by texts that are none")
        metadata = _metadata(attributes.get("metadata", ""))
        if attributes.get("statuscode", "200") != "200":
            with self._lock:
                self._drop(key)
            self._count("failed")
            return
        length = metadata.get("inference-header-content-length", "")
        try:
            response = kind == _RESPONSE
            # The header is that of the request, so it says nothing of a response.
            known = int(length) if length.isdecimal() and not response else None
            payload = read_payload(body, known, response=response)
        except PayloadError as error:
            with self._lock:
                self._drop(key)
            self._count("rejected")
            raise RefusedError(400, str(error)) from error
        moment = _moment(attributes.get("time", ""))
        # A number of the text takes two bytes, and eight in memory.
        size = max(len(body), payload.size)
        half = _Half(response, payload, size, monotonic(), moment, _trace(metadata.get("traceparent", "")))
        with self._lock:
            self._expire(half.at)
            other = self._waiting.get(key)
            if other is None or other.response == response:
                # The same again, after a client has sent it twice, takes the place of the first.
                self._drop(key)
                self._wait(key, half)
                return
        request, answer = (other, half) if response else (half, other)
        record = _record(key, request, answer, peer)
        data = encode(record)
        # One at a time, since a spool is for one thread; who only has a half to leave does not wait for a disk.
        with self._keeping:
            kept = self._keep(record.id, data)
        with self._lock:
            # Not before: where it could not be kept, this half is sent again and finds the other one.
            if self._waiting.get(key) is other:
                self._drop(key)
        if not kept:
            self._count("dropped_queue")

    def expire(self) -> None:
        """Count what has waited for too long."""
        with self._lock:
            self._expire(monotonic())

    def _wait(self, key: tuple[str, str, str], half: _Half) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._drop(next(iter(self._waiting)))
            self._count("dropped_queue")
        if self._bytes + half.size > _MOST_BYTES:
            self._count("dropped_bytes")
            return
        self._waiting[key] = half
        self._bytes += half.size

    def _drop(self, key: tuple[str, str, str]) -> None:
        half = self._waiting.pop(key, None)
        if half is not None:
            self._bytes -= half.size

    def _expire(self, now: float) -> None:
        while self._waiting:
            key, half = next(iter(self._waiting.items()))
            if now - half.at < _WAIT:
                break
            self._drop(key)
            self._count("unpaired")


class KServeSource(ReceivingSource):
    """See `otel_quantmon.evaluator.source.Source`.

    Args:
        host: Address to listen on.
        port: Port; 0 for a free one.
        directory: Directory of the samples; it is made if it does not exist.
        lease: Seconds after which a claim that is not renewed ends.
        count: See `Pairs`.

    Attributes:
        port: Port that it listens on.

    Raises:
        EvaluatorError: The directory or the address cannot be used.
    """

    def __init__(self, host: str, port: int, directory: str, lease: float, count: Count) -> None:
        waiting = DirectorySource(directory, lease)
        spool = Spool(directory)
        self._pairs = pairs = Pairs(spool.put, count)

        class Handler(Receiver):
            def take(self) -> None:
                try:
                    body = self.body()
                    attributes, data = _event(dict(self.headers.items()), body)
                except RefusedError as error:
                    count("dropped_size" if error.status == 413 else "rejected")
                    raise
                pairs.add(attributes, data, str(self.client_address[0]))

        super().__init__(waiting, host, port, Handler, "quantmon-kserve")

    def claim(self, most: int, seconds: float) -> list[Claimed]:
        """See `Source.claim`."""
        self._pairs.expire()
        return super().claim(most, seconds)


def _event(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Return attributes and data of an event, in the binary or the structured mode of CloudEvents over HTTP."""
    lower = {name.lower(): value for name, value in headers.items()}
    if lower.get("content-type", "").partition(";")[0].strip() != "application/cloudevents+json":
        return {name[3:]: value for name, value in lower.items() if name.startswith("ce-")}, body
    try:
        read: Any = json.loads(body)
        attributes = {name: value for name, value in read.items() if isinstance(value, str)}
        if "data_base64" in read:
            return attributes, base64.b64decode(read["data_base64"], validate=True)
        return attributes, json.dumps(read.get("data")).encode()
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(400, "it is no structured event") from error


def _record(key: tuple[str, str, str], request: _Half, answer: _Half, peer: str) -> SampleRecord:
    namespace, service, _ = key
    trace_id, span_id = request.trace
    return SampleRecord(
        id=hashlib.sha256("\n".join(key).encode()).hexdigest()[:32],
        model=answer.payload.model or request.payload.model or service,
        runtime="unknown",
        scheme="unknown",
        provider="unknown",
        digest=None,
        version=answer.payload.version,
        host=peer,
        service=f"{namespace}/{service}",
        instructions="",
        golden=False,
        time=request.time,
        trace_id=trace_id,
        span_id=span_id,
        inputs=dict(request.payload.tensors),
        outputs=dict(answer.payload.tensors),
        facts=(),
    )


def _metadata(text: str) -> dict[str, str]:
    """Headers of the call that the logger was asked to add, by their names in lower case."""
    try:
        read: Any = json.loads(text)
        return {str(name).lower(): str(values[0]) for name, values in read.items() if values}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return {}


def _moment(text: str) -> int:
    """Return nanoseconds since the epoch of an RFC 3339 time; now without one."""
    # Python reads six digits of a second, Go writes nine.
    whole, _, rest = text.partition(".")
    try:
        moment = datetime.fromisoformat(whole.removesuffix("Z") + "+00:00").timestamp()
    except ValueError:
        return time_ns()
    digits = rest.rstrip("Z")[:9]
    found = int(moment) * 10**9 + (int(digits.ljust(9, "0")) if digits.isdecimal() else 0)
    return found if 0 <= found < 1 << 63 else time_ns()


def _trace(text: str) -> tuple[int, int]:
    """Return trace and span of a ``traceparent`` that is sampled; zeros without one."""
    try:
        _, trace, span, flags = text.split("-")
        if len(trace) == 32 and len(span) == 16 and int(flags, 16) & 1:
            return int(trace, 16), int(span, 16)
    except ValueError:
        pass
    return 0, 0
