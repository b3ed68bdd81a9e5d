"""Who a loaded model is: its name, its settings, and what its file says, read once and no sooner than needed."""

from __future__ import annotations

import re
import threading
import weakref
from dataclasses import replace
from pathlib import Path

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.guard import pass_on
from otel_quantmon.models.description import LoadedModel, with_facts
from otel_quantmon.models.formats import read_digest, read_facts
from otel_quantmon.models.formats.facts import ModelFacts
from otel_quantmon.models.formats.source import Identity, identity_of
from otel_quantmon.models.names import Names, content_of
from otel_quantmon.semconv import bounded
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

    Args:
        loaded: What the runtime said when the model was loaded.
        settings: Settings of the process.
        names: Names of the models beside it; without them it is alone.
        failed: True if it could not be loaded after all.

    Attributes:
        loaded: The description as given, without the source, and with what `facts` know better once they are read.
        content: Content that it was loaded from.
        name: Value of ``quantmon.model.name``, never with a full path in it.
        settings: Settings of this model.
        path: Path of the model file, None for a buffer.
        replaced: True if its file had other content when it was loaded before.
        shown_path: The same if the user has asked for it to be shown, else None.
    """

    __slots__ = (
        "__weakref__",
        "_facts",
        "_lock",
        "_source",
        "content",
        "loaded",
        "name",
        "path",
        "replaced",
        "settings",
        "shown_path",
    )

    def __init__(
        self, loaded: LoadedModel, settings: Settings, names: Names | None = None, *, failed: bool = False
    ) -> None:
        self._lock = threading.RLock()
        self._facts: ModelFacts | None = None
        # The source goes when it has been read, see `release_source`.
        self.loaded = replace(loaded, source=None)
        self._source = loaded.source
        self.path = loaded.source if isinstance(loaded.source, str) else None
        self.shown_path = self.path if settings.capture_model_path else None
        self.content = content_of(loaded.source, loaded.identity or self._identity_now())
        self.content.reader = weakref.WeakMethod(self.read_digest)
        names = Names() if names is None else names
        found, runtime = bounded(self._found_name()), loaded.runtime
        # Only somebody who names a model by its digest has each one read for it.
        digest = self.read_digest() if settings.by_digest else None
        apart = settings.name_of(self.path, digest) is not None
        own = names.claim(found, runtime, self.content, keep=not failed, quiet=apart)
        # What is set for a name holds for the file that has it, also after that was replaced.
        before = found if self.path is not None and names.holder_path(found, runtime) == self.path else own
        self.replaced = not failed and before != own
        self.settings: ModelSettings = settings.for_model(own, before=before, path=self.path, digest=digest)
        self.name = own
        if self.settings.name is not None:
            self.name = bounded(self.settings.name)
            names.share(self.name, runtime, self.content)

    def _found_name(self) -> str:
        stem = Path(self.path).stem if self.path else ""
        if stem and not _GENERIC_STEM.fullmatch(stem):
            return stem
        own = self.facts.name or self.loaded.label
        if own:
            return own
        if self.path:
            folder = Path(self.path).parent.name
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
                    facts = self._read_facts()
                    self.loaded = with_facts(self.loaded, facts)
                    self._facts = facts
        return facts

    def as_known(self, loaded: LoadedModel) -> LoadedModel:
        """Return ``loaded``, a later description of the same model, with what has been read of it."""
        return loaded if self._facts is None else with_facts(loaded, self._facts)

    @property
    def digest(self) -> str | None:
        """``sha256:…`` once `read_digest` has read it; this never waits."""
        return self.content.digest

    @property
    def identified(self) -> bool:
        """True once all that can be read of the model has been read."""
        return self._source is None

    @property
    def source(self) -> str | bytes | None:
        """Path or buffer until `release_source`, then a path only."""
        return self._source or self.path

    @property
    def unchanged(self) -> bool:
        """True if `source` is a buffer, or still the file that was loaded."""
        return self._identity_now() == self.content.identity

    @property
    def version(self) -> str | None:
        """As set by the user, else as the model states it."""
        version = self.settings.version or self.facts.version
        return None if version is None else bounded(version)

    def read_digest(self) -> str | None:
        """Read the digest, a pass over the whole file; None when there is no source to read."""
        source = self._source
        if self.content.digest is None and source is not None:
            try:
                digest = read_digest(source)
            except OSError as error:
                pass_on(error)
                return None
            if self.unchanged:
                self.content.digest = digest
        return self.content.digest

    def release_source(self) -> None:
        """Read all there is to read and let go of a buffer, so that it lives no longer than the runtime wants."""
        _ = self.facts
        self.read_digest()
        self._source = None

    def reset_lock(self) -> None:
        """Replace the lock, which a thread that a fork left behind may hold."""
        self._lock = threading.RLock()

    def _identity_now(self) -> Identity | None:
        return None if self.path is None else identity_of(self.path)

    def _read_facts(self) -> ModelFacts:
        if self._source is None:
            return _unknown("the runtime does not say what the model was loaded from")
        try:
            facts = read_facts(self._source)
        except (ModelFormatError, OSError) as error:
            pass_on(error)
            return _unknown(str(error))
        if not self.unchanged:
            return _unknown("the model file has changed since it was loaded")
        return facts


def _unknown(reason: str) -> ModelFacts:
    return ModelFacts(format="unknown", scheme="unknown", unknown={"file": reason})
