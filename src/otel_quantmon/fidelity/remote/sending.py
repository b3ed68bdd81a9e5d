"""Sampled calls of models whose reference is elsewhere: encoded in the background, and sent on their way."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from time import monotonic, thread_time, time_ns
from typing import cast

from otel_quantmon import semconv
from otel_quantmon.fidelity.assessment import Assessment
from otel_quantmon.fidelity.remote.record import FORMAT, LARGEST, SampleRecord, encode
from otel_quantmon.fidelity.remote.spool import Spool
from otel_quantmon.fidelity.remote.store import Store
from otel_quantmon.fidelity.sample import Sample
from otel_quantmon.guard import internal_error
from otel_quantmon.hooks import SampleHook
from otel_quantmon.models.identity import Model
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.process.worker import reference_worker
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.providers import Origin, Providers

__all__ = ["Remote", "RemoteReference"]

_logger = logging.getLogger("otel_quantmon")

# The SDK exports what came in five seconds at once, and a receiver of gRPC takes 4 MiB: of all models together no more
# bytes leave than that, with room for one sample of each of a few models beside.
_BYTES_PER_SECOND = 2 * 1024**2 / 5

# Where there is nowhere to send to, seconds until that is tried again.
_AFTER_FAILURE = 30.0


class Remote:
    """The ways out of the process, and how they are shared.

    Args:
        settings: Settings of the process.
        providers: A function that gives the providers: samples are their events, unless a directory is named.
        warn: A function that logs a message once.

    Attributes:
        hooks: Hooks of the application; each is asked of every sample.
        users: Instrumentors that are on. Without one nothing leaves: what is still on its way may have lost its hook.
    """

    def __init__(
        self, settings: Settings, providers: Callable[[], Providers], warn: Callable[[str], None]
    ) -> None:
        self.hooks: list[SampleHook] = []
        self.users = 0
        self.warn = warn
        self._settings = settings
        self._providers = providers
        self._references: weakref.WeakSet[RemoteReference] = weakref.WeakSet()
        self._spool: Spool | None = None
        self._store: Store | None = None
        self._free_at = 0.0
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: what waited is the parent's."""
        self._lock = threading.RLock()
        self._waiting = 0

    def reference(self, assessment: Assessment, model: Model) -> RemoteReference | None:
        """Have samples of ``model`` sent; None if they cannot be."""
        # Without a budget nothing is ever due.
        if not self._settings.reference_budget:
            return None
        if model.facts.stateful:
            self.warn(
                f"model {model.name!r} keeps state between its calls, so single calls cannot be compared with a "
                "remote reference; record a baseline instead (quantmon baseline record)"
            )
            return None
        if find_spec("zstandard") is None:
            self.warn(
                "samples for a remote reference are compressed by the package zstandard, which is not installed, and "
                "none is sent: pip install 'otel-quantmon[remote]'"
            )
            return None
        made = RemoteReference(self, assessment, model)
        assessment.compare_with(made, "remote")
        self._references.add(made)
        return made

    @property
    def share(self) -> float:
        """Of one core, for each model whose reference is remote."""
        return self._settings.reference_budget / max(1, len(self._references))

    @property
    def origin(self) -> Origin:
        """Host and service that samples come from."""
        return self._providers().origin()

    def enter(self) -> bool:
        """Let one more sample wait; False if there are too many."""
        with self._lock:
            free = self._waiting < self._settings.reference_queue
            self._waiting += free
        return free

    def leave(self) -> None:
        """Take note that a sample does not wait any more."""
        with self._lock:
            self._waiting -= 1

    def allowed(self, model: str, sample: Sample, inputs: tuple[str, ...] | None) -> bool:
        """Remove what may not leave from ``sample``; False if nothing of it may.

        Args:
            model: Name of the model.
            sample: Sample, which is changed in place.
            inputs: Names of those that may leave, None for all.
        """
        if not self.users:
            return False
        if inputs is not None:
            if inputs and sample.inputs and not sample.inputs.keys() & set(inputs):
                self.warn(
                    f"model {model!r}: none of its inputs ({', '.join(sample.inputs)}) is among those that may leave "
                    f"(QUANTMON_REMOTE_INPUTS: {', '.join(inputs)}), so its samples hold outputs alone, and no float "
                    "model can be run on them"
                )
            sample.inputs = {name: value for name, value in sample.inputs.items() if name in inputs}
        try:
            # Each instrumentor gives the one that it was given.
            hooks = {id(hook): hook for hook in self.hooks}.values()
            return all(hook(model, sample.inputs, sample.outputs) for hook in hooks)
        except Exception as error:  # noqa: BLE001  the application's: what it could not look at does not leave
            internal_error(error)
            return False

    def send(self, record: SampleRecord) -> semconv.ReferenceOutcome:
        """Send ``record`` by the way that is set."""
        data = encode(record)
        directory = self._settings.remote_directory
        if directory is not None:
            if self._spool is None:
                self._spool = Spool(directory)
            return "sent" if self._spool.put(record.id, data) else "dropped_queue"
        if not self._providers().events.heard:
            self.warn(
                "samples for a remote reference are events, and there is no logger provider of an SDK that exports "
                "them: configure one (OTEL_LOGS_EXPORTER=otlp), or set QUANTMON_REMOTE_DIRECTORY"
            )
            return "failed"
        location = None
        if len(data) > self._settings.remote_size:
            location = self._stored(record, data)
            if location is None:
                return "dropped_size"
            data = b""
        with self._lock:
            self._free_at = max(self._free_at, monotonic()) + len(data) / _BYTES_PER_SECOND
        return "sent" if self._emitted(record, data, location) else "failed"

    @property
    def wait(self) -> float:
        """Seconds until the next event may leave."""
        return max(0.0, self._free_at - monotonic())

    def _stored(self, record: SampleRecord, data: bytes) -> str | None:
        url = self._settings.remote_store
        if url is None:
            self.warn(
                f"model {record.model!r}: samples larger than QUANTMON_REMOTE_SIZE "
                f"({self._settings.remote_size} bytes) are dropped: name a folder or a bucket in QUANTMON_REMOTE_STORE"
            )
            return None
        if self._store is None:
            self._store = Store(url, LARGEST)
        return self._store.put(record.id, data)

    def _emitted(self, record: SampleRecord, data: bytes, location: str | None) -> bool:
        attributes = {
            semconv.MODEL_NAME: record.model,
            semconv.RUNTIME_NAME: record.runtime,
            semconv.QUANTIZATION_SCHEME: record.scheme,
            semconv.EXECUTION_PROVIDER: record.provider,
            semconv.MODEL_DIGEST: record.digest,
            semconv.MODEL_VERSION: record.version,
            semconv.SAMPLE_ID: record.id,
            semconv.SAMPLE_FORMAT: FORMAT,
            semconv.SAMPLE_LOCATION: location,
        }
        return self._providers().events.emit(semconv.EVENT_SAMPLE, attributes, data, warning=False)


class RemoteReference:
    """Sends sampled calls of one model on their way.

    Args:
        remote: Ways out.
        assessment: Assessment of the model, which is asked for samples.
        model: Model whose calls are sampled.
    """

    def __init__(self, remote: Remote, assessment: Assessment, model: Model) -> None:
        self._remote = remote
        self._assessment = assessment
        # Not the model, which lives as long as the application wants it.
        self._content = model.content
        self._version = model.version
        self._interval = model.settings.remote_interval
        self._inputs = model.settings.remote_inputs
        self._failing = False

    def submit(self, sample: Sample) -> None:
        """Send ``sample`` in the background."""
        if self._remote.enter():
            reference_worker.submit(lambda: self._send(sample))
            return
        self._assessment.release(sample)
        if sample.golden:
            self._assessment.count("dropped_queue")
        else:
            self._assessment.missed("dropped_queue")

    def _send(self, sample: Sample) -> None:
        began = thread_time()
        outcome: semconv.ReferenceOutcome = "failed"
        golden = sample.golden
        try:
            outcome = self._sent(sample)
        except Exception as error:  # noqa: BLE001  disks, networks and packages of others fail in any way
            if not self._failing:
                _logger.warning(
                    "model %r: a sample cannot be sent, it is tried again every %.0f s: %s: %s",
                    self._assessment.model_name,
                    _AFTER_FAILURE,
                    type(error).__name__,
                    error,
                )
        finally:
            self._assessment.release(sample)
            self._remote.leave()
        self._failing = outcome == "failed"
        self._assessment.count(outcome)
        if golden:
            return  # nobody has asked for it, so there is none to ask for after it
        spent = thread_time() - began + sample.copying * 1e-9
        pause = max(spent / self._remote.share, self._interval)
        if self._assessment.signals.in_burst():
            pause = 0.001
        if self._failing:
            pause = max(pause, _AFTER_FAILURE)
        self._assessment.demand(max(pause, self._remote.wait))

    def _sent(self, sample: Sample) -> semconv.ReferenceOutcome:
        attributes = self._assessment.attributes
        if not self._remote.allowed(self._assessment.model_name, sample, self._inputs):
            return "withheld"
        model, runtime, scheme, provider = (cast("str", attributes[key]) for key in semconv.MODEL_ATTRIBUTES)
        span = sample.span
        origin = self._remote.origin
        record = SampleRecord(
            # Not uuid4(), which a seeded generator of the application's could be behind.
            id=uuid.UUID(bytes=os.urandom(16), version=4).hex,
            model=model,
            runtime=runtime,
            scheme=scheme,
            provider=provider,
            digest=self._content.known_digest(),
            version=self._version,
            host=origin.host or socket.gethostname(),
            service=origin.service,
            instructions=cpu_isa(),
            golden=sample.golden,
            time=time_ns(),
            trace_id=0 if span is None else span.trace_id,
            span_id=0 if span is None else span.span_id,
            inputs=sample.inputs,
            outputs=sample.outputs,
            facts=self._assessment.facts,
        )
        return self._remote.send(record)
