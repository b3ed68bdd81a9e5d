"""OTLP as a source: services, or a Collector, send their samples to a worker, which keeps them in a directory at once.

A request is answered when its samples are files, so what has been accepted outlives the worker; others may work on the
same directory (``dir:``). Requests are OTLP over HTTP with protobuf, as the SDKs' ``http/protobuf`` and the Collector's
``otlp_http`` send it. There is no TLS and no password: on another address than loopback, put a Collector in front.
"""

from __future__ import annotations

import hashlib
import threading

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.receiving import Receiver, ReceivingSource, RefusedError
from otel_quantmon.evaluator.records import SentSample, events_in, fetched
from otel_quantmon.fidelity.remote.record import is_sample_id
from otel_quantmon.fidelity.remote.spool import Spool
from otel_quantmon.fidelity.remote.store import Store

__all__ = ["PATH", "OtlpSource"]

PATH = "/v1/logs"


class OtlpSource(ReceivingSource):
    """See `otel_quantmon.evaluator.source.Source`.

    Args:
        host: Address to listen on.
        port: Port; 0 for a free one.
        directory: Directory of the samples; it is made if it does not exist.
        lease: Seconds after which a claim that is not renewed ends.
        store: Store of the samples that were too large for an event; None without one.

    Attributes:
        port: Port that it listens on.

    Raises:
        EvaluatorError: The directory or the address cannot be used.
    """

    def __init__(
        self, host: str, port: int, directory: str, lease: float, store: Store | None = None
    ) -> None:
        waiting = DirectorySource(directory, lease)
        spool = Spool(directory)
        # One at a time: a spool is for one thread.
        one_at_a_time = threading.Lock()

        class Handler(_Handler):
            def keep(self, sample: SentSample) -> bool:
                data = fetched(sample, store)
                known = sample.id is not None and is_sample_id(sample.id)
                identity = sample.id if known else hashlib.sha256(data).hexdigest()[:32]
                with one_at_a_time:
                    return spool.put(str(identity), data)

        super().__init__(waiting, host, port, Handler, "quantmon-otlp")


class _Handler(Receiver):
    answers = "application/x-protobuf"

    def keep(self, sample: SentSample) -> bool:
        """Keep a sample; False if too many wait."""
        raise NotImplementedError

    def take(self) -> None:
        for sample in self._samples():
            if not self.keep(sample):
                # To be sent again: what was kept is kept once.
                raise RefusedError(503, "too many samples wait")

    def _samples(self) -> list[SentSample]:
        if self.path != PATH:
            raise RefusedError(404, f"samples are taken at {PATH}")
        if self.headers.get("Content-Type", "").partition(";")[0].strip() != "application/x-protobuf":
            raise RefusedError(415, "OTLP is taken as application/x-protobuf")
        try:
            return events_in(ExportLogsServiceRequest.FromString(self.body()))
        except DecodeError as error:
            raise RefusedError(400, "it is no request of OTLP") from error
