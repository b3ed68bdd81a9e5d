"""A service that says what an uploaded file is, with an int8 model on ONNX Runtime. It knows no OpenTelemetry.

    pip install fastapi uvicorn onnxruntime onnx magika
    uvicorn --app-dir examples/zero-code fastapi_app:app

and the same observed, the requests by FastAPI's own instrumentation and the inferences under them by this one:

    pip install otel-quantmon[otlp] opentelemetry-instrumentation-fastapi
    OTEL_SERVICE_NAME=classifier opentelemetry-instrument uvicorn --app-dir examples/zero-code fastapi_app:app

Ask it with

    curl --data-binary @README.md http://127.0.0.1:8000/classify
"""

from __future__ import annotations

import onnxruntime
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from magika_int8 import LABELS, features, int8_model

app = FastAPI(title="classifier")
session = onnxruntime.InferenceSession(str(int8_model()), providers=["CPUExecutionProvider"])


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/classify")
async def classify(request: Request) -> dict[str, str | float]:
    content = await request.body()
    if not content:
        raise HTTPException(422, "send the file as the request's body")
    (scores,) = await run_in_threadpool(session.run, None, {"bytes": features(content)[None]})
    best = int(scores[0].argmax())
    return {"label": LABELS[best], "score": round(float(scores[0, best]), 4)}
