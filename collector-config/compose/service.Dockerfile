# The example service of examples/zero-code, unchanged, under opentelemetry-instrument. Built from the repository's root.

FROM python:3.12-slim
WORKDIR /app
COPY . /source
RUN pip install --no-cache-dir "/source[onnxruntime,otlp]" fastapi uvicorn magika onnx \
        "opentelemetry-instrumentation-fastapi<1" \
    && cp /source/examples/zero-code/*.py . && rm -r /source
# The int8 model is made while the image is built, by root; at its start the service has only to read it.
ENV XDG_CACHE_HOME=/app/models
RUN python -c "import magika_int8; magika_int8.int8_model()"
USER 10001
CMD ["opentelemetry-instrument", "uvicorn", "fastapi_app:app", "--host", "0.0.0.0", "--port", "8000"]
