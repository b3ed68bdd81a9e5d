"""Which loaded models are the same one, and names that distinguish the others."""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from otel_quantmon.guard import pass_on
from otel_quantmon.models.formats import read_digest
from otel_quantmon.models.formats.source import Identity, identity_of
from otel_quantmon.semconv import NAME_LIMIT

__all__ = ["Content", "Names", "content_of"]

_logger = logging.getLogger("otel_quantmon")

_LARGEST_COMPARED = 512 * 1024**2
"""Bytes of a model that is read on the loading thread, only to distinguish it from another: about a second of work."""

_EDGE = 1 << 16
"""Bytes of either end of a buffer by which it is known again when it has gone before its digest was read."""

_MOST_NAMES = 4096

_DIGITS = (8, 16, 64)


@dataclass(slots=True)
class Content:
    """What a model was loaded from. It outlives the model, and holds nothing of it.

    Attributes:
        path: Path of the file, None for a buffer and where it is not known.
        identity: Identity of the file, when its loading began.
        size: Bytes of the file or buffer, None if unknown.
        edges: Hash of a buffer's two ends.
        digest: ``sha256:…`` once it has been read.
        reader: A function that reads the digest, for as long as the model is there.
    """

    path: str | None
    identity: Identity | None
    size: int | None
    edges: bytes | None
    digest: str | None = None
    reader: weakref.WeakMethod[Callable[[], str | None]] | None = None

    def known_digest(self) -> str | None:
        """Return the digest, read if need be and as long as there is something to read; None without."""
        read = self.reader() if self.reader is not None else None
        if self.digest is None and read is not None:
            self.digest = read()
        if self.digest is None and self.path is not None and identity_of(self.path) == self.identity:
            try:
                self.digest = read_digest(self.path)
            except OSError as error:
                pass_on(error)
                return None
        return self.digest

    def same(self, other: Content, *, read: bool = True) -> bool:
        """Return True if both were loaded from the same bytes, as far as is known without long reading.

        Without ``read``, as far as is known without any.
        """
        if self.path == other.path and self.identity == other.identity and self.edges == other.edges:
            # Buffers may differ between their ends.
            if self.path is not None or (self.size or 0) <= 2 * _EDGE:
                return True
        elif None not in (self.size, other.size) and self.size != other.size:
            return False
        mine, theirs = self.digest, other.digest
        if not read:
            return mine is None or theirs is None or mine == theirs
        if max(self.size or 0, other.size or 0) <= _LARGEST_COMPARED:
            mine, theirs = self.known_digest(), other.known_digest()
        if mine is None or theirs is None:
            return self.path == other.path and self.edges == other.edges
        return mine == theirs

    def tag(self) -> str | None:
        """Hexadecimal digits that identify it: of its digest; of its path, if it is too large to be read."""
        if (self.size or 0) > _LARGEST_COMPARED and self.path is not None:
            return hashlib.sha256(self.path.encode(errors="surrogatepass")).hexdigest()
        digest = self.known_digest()
        return None if digest is None else digest.rpartition(":")[2]


def content_of(source: str | bytes | None, identity: Identity | None) -> Content:
    """Return what is known of ``source``, a path or a buffer, without reading all of it."""
    if isinstance(source, str):
        return Content(source, identity, None if identity is None else identity.size, None)
    if source is None:
        return Content(None, None, None, None)
    ends = hashlib.sha256(b"%d " % len(source) + source[:_EDGE] + source[-_EDGE:])
    return Content(None, None, len(source), ends.digest())


class Names:
    """Names of the models that report to one pair of providers: one name for one content.

    The first model keeps the name it comes with. The name of a later one with other content ends with
    the first digits of its digest, as ``encoder/model@ab12cd34``. Nothing is read unless two models meet under one
    name, from other paths or with other times or sizes.
    """

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], Content] = {}
        self._warned: set[str] = set()

    def claim(
        self, name: str, runtime: str, content: Content, *, keep: bool = True, quiet: bool = False
    ) -> str:
        """``name``, or if a model of other content has it in this runtime, one made of it.

        Args:
            name: Name that the model would have alone.
            runtime: Value of ``quantmon.runtime.name``.
            content: Content of the model.
            keep: False for a model that could not be loaded, which takes no name from others.
            quiet: True if the user has given the models different names.
        """
        if self._takes(name, runtime, content, keep=keep):
            return name
        tag = content.tag()
        if tag is None:
            return name
        own = name
        for digits in _DIGITS:
            own = f"{name[: NAME_LIMIT - 1 - digits]}@{tag[:digits]}"
            if self._takes(own, runtime, content, keep=keep):
                break
        if not quiet and keep:
            self._warn(
                name,
                f"two models of different content are named {name!r}: this one is reported as {own!r}, and what is set "
                f"for {name!r} does not hold for it; a section for its path or its digest (sha256:...) can name it",
            )
        return own

    def share(self, name: str, runtime: str, content: Content) -> None:
        """Note that the settings give ``name`` to a model, and say once if they give it to different ones."""
        key = runtime, name
        holder = content
        if len(self._holders) < _MOST_NAMES:
            holder = self._holders.setdefault(key, content)
        if not holder.same(content, read=False):
            self._warn(
                name,
                f"the settings give the name {name!r} to models of different content: they share their series, "
                "baseline and reference",
            )

    def holder_path(self, name: str, runtime: str) -> str | None:
        """Path of the model that has ``name``, None if it has none."""
        holder = self._holders.get((runtime, name))
        return None if holder is None else holder.path

    def _takes(self, name: str, runtime: str, content: Content, *, keep: bool) -> bool:
        # Without a lock: a signal handler may load a model while one is being loaded.
        key = runtime, name
        if keep and len(self._holders) < _MOST_NAMES:
            holder = self._holders.setdefault(key, content)
        else:
            holder = self._holders.get(key, content)
        return holder is content or holder.same(content)

    def _warn(self, name: str, message: str) -> None:
        if name not in self._warned and len(self._warned) < _MOST_NAMES:
            self._warned.add(name)
            _logger.warning("%s", message)
