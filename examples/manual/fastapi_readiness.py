"""The FastAPI service of `zero-code/`, which leaves the rotation while something is wrong with it, and comes back.

    pip install otel-quantmon[otlp] fastapi uvicorn onnxruntime onnx magika
    OTEL_SERVICE_NAME=classifier opentelemetry-instrument \
        uvicorn --app-dir examples/manual fastapi_readiness:app

`GET /ready` answers 503 while an anomaly is on of a type in READINESS_ANOMALIES, for a load balancer or a readiness
probe (collector-config/kubernetes/readiness.yaml). `GET /health` answers as before: a restart is not asked for.

The types are to be those of one instance. What comes with the load, such as latency_drift, stall and timeout, is made
worse by leaving: the others get more of it. What comes with the data, such as input_distribution and relative_error,
comes to all instances at once, and none would be left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from otel_quantmon import Anomaly, ONNXRuntimeInstrumentor

sys.path.append(str(Path(__file__).parents[1] / "zero-code"))
import fastapi_app

UNFIT = frozenset(os.environ.get("READINESS_ANOMALIES", "error_rate fallback").split())
active: set[tuple[str, str, str]] = set()


def on_anomaly(anomaly: Anomaly) -> None:
    """Called on a thread of the instrumentation when an anomaly is entered and when it is left."""
    if anomaly.type in UNFIT:
        change = active.add if anomaly.what == "entered" else active.discard
        change((anomaly.type, anomaly.model, anomaly.of))


async def ask_itself() -> None:
    """Out of rotation nobody asks the model, and without calls it is never found to be well again."""
    known = b"import this\n"
    while True:
        await asyncio.sleep(0.1)
        if active:
            # What it raises is counted, and is why it stays out.
            with contextlib.suppress(Exception):
                content = fastapi_app.features(known)[None]
                await run_in_threadpool(fastapi_app.session.run, None, {"bytes": content})


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    asking = asyncio.create_task(ask_itself())
    yield
    asking.cancel()


instrumentor = ONNXRuntimeInstrumentor()
if instrumentor.is_instrumented_by_opentelemetry:
    # By the command, which knows no hooks.
    instrumentor.uninstrument()
instrumentor.instrument(on_anomaly=on_anomaly)

app = FastAPI(title="classifier", lifespan=lifespan)
app.include_router(fastapi_app.app.router)


@app.get("/ready")
async def ready() -> JSONResponse:
    unfit = sorted({type_ for type_, _, _ in active})
    return JSONResponse({"anomalies": unfit}, 503 if unfit else 200)
