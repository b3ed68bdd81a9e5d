"""Who a loaded model is: its name, its settings, and what its file says, read once and no sooner than needed."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace
from pathlib import Path

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.formats import read_digest, read_facts
from otel_quantmon.formats.facts import ModelFacts
from otel_quantmon.probe.loaded import LoadedModel
from otel_quantmon.settings import ModelSettings, Settings

__all__ = ["UNNAMED", "Model"]

UNNAMED = "unnamed"
"""Name of a model that neither its source nor its own metadata names."""

# File names that every second export has: the folder then says more.
_GENERIC_STEM = re.compile(
    r"(model|network|net|graph|saved_model|checkpoint|weights|export|exported|tflite|onnx)"
    r"([._-](int8|uint8|int4|quant|quantized|quantised|fp16|float16|dynamic|static|qdq|optimized))*",
    re.IGNORECASE,
)


class Model:
    """One loaded model.

    Attributes:
        loaded: what the runtime told when it was loaded.
        name: value of ``quantmon.model.name``, never with a full path in it.
        settings: those of this name.
        path: of the model file, None for a buffer.
        shown_path: the same if the user has asked for it to be shown, else None.
    """

    __slots__ = (
        "__weakref__",
        "_digest",
        "_facts",
        "_lock",
        "_source",
        "_stat",
        "loaded",
        "name",
        "path",
        "settings",
        "shown_path",
    )

    def __init__(self, loaded: LoadedModel, settings: Settings) -> None:
        self._lock = threading.Lock()
        self._facts: ModelFacts | None = None
        self._digest: str | None = None
        # The source goes when it has been read, see `release_source`.
        self.loaded = replace(loaded, source=None)
        self._source = loaded.source
        self.path = loaded.source if isinstance(loaded.source, str) else None
        self.shown_path = self.path if settings.capture_model_path else None
        self._stat = _stat(self.path)
        found = self._found_name()
        self.settings: ModelSettings = settings.for_model(found)
        self.name = self.settings.name or found

    def _found_name(self) -> str:
        stem = Path(self.path).stem if self.path else ""
        if stem and not _GENERIC_STEM.fullmatch(stem):
            return stem
        own = self.facts.name or self.loaded.label
        if own:
            return own
        if self.path:
            folder = Path(self.path).absolute().parent.name
            return f"{folder}/{stem}" if folder else stem
        digest = self.read_digest()
        return f"{UNNAMED}-{digest.rpartition(':')[2][:8]}" if digest else UNNAMED

    @property
    def facts(self) -> ModelFacts:
        """What the model's file or buffer says; reads it the first time."""
        facts = self._facts
        if facts is None:
            with self._lock:
                facts = self._facts
                if facts is None:
                    facts = self._facts = self._read_facts()
        return facts

    @property
    def digest(self) -> str | None:
        """``sha256:…`` once `read_digest` has read it; this never waits."""
        return self._digest

    @property
    def identified(self) -> bool:
        """True once all that can be read of the model has been read."""
        return self._source is None

    @property
    def source(self) -> str | bytes | None:
        """Path or buffer until `release_source`, then a path only."""
        return self._source or self.path

    @property
    def version(self) -> str | None:
        """As set by the user, else as the model states it."""
        return self.settings.version or self.facts.version

    def read_digest(self) -> str | None:
        """Read the digest, a pass over the whole file; None when there is no source to read."""
        source = self._source
        if self._digest is None and source is not None:
            try:
                digest = read_digest(source)
            except OSError:
                return None
            if _stat(self.path) == self._stat:
                self._digest = digest
        return self._digest

    def release_source(self) -> None:
        """Read all there is to read and let go of a buffer, so that it lives no longer than the runtime wants."""
        _ = self.facts
        self.read_digest()
        self._source = None

    def reset_lock(self) -> None:
        """Replace the lock, which a thread that a fork left behind may hold."""
        self._lock = threading.Lock()

    def _read_facts(self) -> ModelFacts:
        if self._source is None:
            return _unknown("the runtime does not tell what the model was loaded from")
        try:
            facts = read_facts(self._source)
        except (ModelFormatError, OSError) as error:
            return _unknown(str(error))
        if _stat(self.path) != self._stat:
            return _unknown("the model file has changed since it was loaded")
        return facts


def _unknown(reason: str) -> ModelFacts:
    return ModelFacts(format="unknown", scheme="unknown", unknown={"file": reason})


def _stat(path: str | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
