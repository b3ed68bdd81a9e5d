"""Baselines that outlive the process: a file in a folder, for each model's content on each type of host and provider.

What is not as it was in earlier processes is told once, when a model is met: another file under its name, or a provider
that is gone. Hosts may share the folder: a file has the names of those that have used it, since one without a GPU has
not lost that of another.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from otel_quantmon.detection.model_streams import ModelStreams

__all__ = ["Earlier", "KeptBaselines"]

_VERSION = 3

# Seconds between two times that files are written, at least.
_BETWEEN = 10.0

# Names of hosts in a file: where each container has a name of its own, the last ones.
_MOST_NAMES = 64


class Earlier(NamedTuple):
    """A file of this type of host that was there before this process.

    Attributes:
        model, digest, provider: What it is of.
        here: True if it was used on this host itself, by its name.
    """

    model: str
    digest: str
    provider: str
    here: bool


class KeptBaselines:
    """Keeps what was learnt, and gives it to the streams of a model with the same content on the same type of host.

    Args:
        folder: Folder of the files; it is made when the first baseline is kept.
        host: Type of the host, such as its instruction set: how long a call takes, and what it computes, follows from
            it.
        name: Name of the host, by default as the system has it.
    """

    def __init__(self, folder: str, host: str, name: str | None = None) -> None:
        self._folder = Path(folder)
        self._host = host
        self._name = platform.node() if name is None else name
        # What is learnt and not yet written.
        self._due: weakref.WeakSet[ModelStreams] = weakref.WeakSet()
        self._brought: weakref.WeakSet[ModelStreams] = weakref.WeakSet()
        self._earlier: list[Earlier] | None = None
        self._written: float | None = None

    def bring(self, streams: ModelStreams, digest: str, provider: str) -> list[Earlier]:
        """Give ``streams`` what was kept of ``digest`` on ``provider``, once; what cannot be read is learnt anew.

        Returns:
            If nothing was kept of it: what was kept of models of its name by earlier processes on this type of host.
        """
        if streams in self._brought:
            return []
        self._brought.add(streams)
        if self._earlier is None:
            self._earlier = self._found()
        path = self._path(digest, provider)
        kept = self._read(path)
        if kept is not None:
            streams.begin(kept["streams"], "kept", _shares(kept.get("shares")))
            if self._name not in _names(kept):
                # Where it cannot be written, the baseline is of use all the same.
                with suppress(OSError):
                    self._replace(path, kept)
            return []
        return [one for one in self._earlier if one.model == streams.model]

    def write(self, all_streams: Iterable[tuple[ModelStreams, str, str]], now: float) -> None:
        """Keep what has been learnt.

        Args:
            all_streams: Streams of each model, its digest and its provider.
            now: Seconds.

        Raises:
            OSError: The folder or a file cannot be written. All others were; this one is due at the next time.
        """
        if self._written is not None and now - self._written < _BETWEEN:
            return
        failed: OSError | None = None
        for streams, digest, provider in all_streams:
            if streams.newly_learnt():
                self._due.add(streams)
            if streams not in self._due:
                continue
            self._written = now
            document = {
                "version": _VERSION,
                "digest": digest,
                "host": self._host,
                "provider": provider,
                "model": streams.model,
                "streams": streams.states(),
                "shares": streams.shares(),
            }
            path = self._path(digest, provider)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._replace(path, {**document, "names": _names(self._read(path) or {})})
            except OSError as error:
                failed = error
            else:
                self._due.discard(streams)
        if failed is not None:
            raise failed

    def _replace(self, path: Path, document: Mapping[str, Any]) -> None:
        """Write ``document`` with the name of this host, in one step: another process may read it, or write its own."""
        names = [*(name for name in _names(document) if name != self._name), self._name][-_MOST_NAMES:]
        # Not by the process alone: in containers, which may share the folder, each may be the first.
        new = path.with_suffix(f".{os.getpid()}.{secrets.token_hex(8)}.new")
        try:
            new.write_text(json.dumps({**document, "names": names}), encoding="utf-8")
            new.replace(path)
        finally:
            # What is left where the disk is full.
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def _path(self, digest: str, provider: str) -> Path:
        of = hashlib.sha256(f"{digest} {self._host} {provider}".encode(errors="surrogatepass")).hexdigest()
        return self._folder / f"{of[:32]}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict):
            return None
        kept = cast("dict[str, Any]", found)
        streams = kept.get("streams")
        if kept.get("version") != _VERSION or not isinstance(streams, dict):
            return None
        by_kind = cast("dict[str, Any]", streams)
        return kept if all(isinstance(of, dict) for of in by_kind.values()) else None

    def _found(self) -> list[Earlier]:
        try:
            paths = sorted(self._folder.glob("*.json"))
        except OSError:
            return []
        found = [kept for path in paths if (kept := self._read(path)) is not None]
        return [
            Earlier(
                str(kept.get("model")),
                str(kept.get("digest")),
                str(kept.get("provider")),
                self._name in _names(kept),
            )
            for kept in found
            if kept.get("host") == self._host
        ]


def _names(document: Mapping[str, Any]) -> list[str]:
    """Names of hosts in a file."""
    found: Any = document.get("names")
    if not isinstance(found, list):
        return []
    return [one for one in cast("list[object]", found) if isinstance(one, str)]


def _shares(found: Any) -> dict[str, dict[str, float]]:
    """Shares out of a file; what are none are left out."""
    if not isinstance(found, dict):
        return {}
    shares: dict[str, dict[str, float]] = {}
    for kind, by_name in cast("dict[str, Any]", found).items():
        if isinstance(by_name, dict):
            known = cast("dict[str, Any]", by_name)
            shares[kind] = {
                of: float(one) for of, one in known.items() if isinstance(one, (int, float)) and 0 < one <= 1
            }
    return shares
