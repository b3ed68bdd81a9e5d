"""The exceptions that a user of otel-quantmon can meet."""

from __future__ import annotations

__all__ = ["CommandError", "DeskError", "InferenceTimeoutError", "ModelFormatError"]


class InferenceTimeoutError(TimeoutError):
    """An inference ran past its ``QUANTMON_TIMEOUT`` and was ended.

    Its ``__cause__`` is the runtime's own error. Raised only where the runtime can end a run
    (ONNX Runtime, between two nodes of the graph).

    Attributes:
        model: Name of the model, as in ``quantmon.model.name``.
        timeout: The limit that was exceeded, in seconds.
    """

    def __init__(self, model: str, timeout: float) -> None:
        super().__init__(f"inference of {model!r} exceeded its timeout of {timeout:g} s")
        self.model = model
        self.timeout = timeout

    def __reduce__(self) -> tuple[type[InferenceTimeoutError], tuple[str, float]]:
        # BaseException pickles its message as the only argument, which would not fit __init__.
        return type(self), (self.model, self.timeout)


class CommandError(Exception):
    """What a command was asked for cannot be done; the message says why, and what to do, to the person who asked."""


class ModelFormatError(CommandError, ValueError):
    """A model file or buffer could not be read: damaged, truncated or of an unknown format."""


class DeskError(CommandError):
    """A run cannot be received, kept or shown."""
