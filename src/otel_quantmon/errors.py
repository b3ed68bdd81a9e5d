"""The exceptions that a user of otel-quantmon can meet."""

from __future__ import annotations

__all__ = ["InferenceTimeoutError", "ModelFormatError"]


class InferenceTimeoutError(TimeoutError):
    """An inference ran past its ``QUANTMON_TIMEOUT`` and was ended.

    Its ``__cause__`` is the runtime's own error. Raised only where the runtime can end a run
    (ONNX Runtime, between two nodes of the graph).

    Attributes:
        model: name of the model, as in ``quantmon.model.name``.
        timeout: the limit that was exceeded, in seconds.
    """

    def __init__(self, model: str, timeout: float) -> None:
        super().__init__(f"inference of {model!r} exceeded its timeout of {timeout:g} s")
        self.model = model
        self.timeout = timeout

    def __reduce__(self) -> tuple[type[InferenceTimeoutError], tuple[str, float]]:
        # BaseException pickles its message as the only argument, which would not fit __init__.
        return type(self), (self.model, self.timeout)


class ModelFormatError(ValueError):
    """A model file or buffer could not be read: damaged, truncated or of an unknown format."""
