"""Baselines that outlive the process: a file in a folder, for each model's content on each type of host and provider.

What is not as it was in earlier processes is told once, when a model is met: another file under its name, or a provider
that is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from otel_quantmon.detection.model_streams import ModelStreams

__all__ = ["Earlier", "KeptBaselines"]

_VERSION = 3

# Seconds between two times that files are written, at least.
_BETWEEN = 10.0


class Earlier(NamedTuple):
    """A file that was there before this process."""

    model: str
    digest: str
    host: str
    provider: str


class KeptBaselines:
    """Keeps what was learnt, and gives it to the streams of a model with the same content on the same type of host.

    Args:
        folder: Folder of the files; it is made when the first baseline is kept.
        host: Type of the host, such as its instruction set: how long a call takes, and what it computes, follows from
            it.
    """

    def __init__(self, folder: str, host: str) -> None:
        self._folder = Path(folder)
        self._host = host
        self._brought: weakref.WeakSet[ModelStreams] = weakref.WeakSet()
        self._earlier: list[Earlier] | None = None
        self._written: float | None = None

    def bring(self, streams: ModelStreams, digest: str, provider: str) -> list[Earlier]:
        """Give ``streams`` what was kept of ``digest`` on ``provider``, once; what cannot be read is learnt anew.

        Returns:
            If nothing was kept of it: what was kept of models of its name by earlier processes.
        """
        if streams in self._brought:
            return []
        self._brought.add(streams)
        if self._earlier is None:
            self._earlier = self._found()
        kept = self._read(self._path(digest, provider))
        if kept is not None:
            streams.begin(kept["streams"], "kept", _shares(kept.get("shares")))
            return []
        return [one for one in self._earlier if one.model == streams.model]

    def write(self, all_streams: Iterable[tuple[ModelStreams, str, str]], now: float) -> None:
        """Keep what has been learnt.

        Args:
            all_streams: Streams of each model, its digest and its provider.
            now: Seconds.

        Raises:
            OSError: The folder or a file cannot be written.
        """
        if self._written is not None and now - self._written < _BETWEEN:
            return
        for streams, digest, provider in all_streams:
            if not streams.newly_learnt():
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
            path.parent.mkdir(parents=True, exist_ok=True)
            # In one step: another process may read it, or write its own.
            new = path.with_suffix(f".{os.getpid()}.new")
            new.write_text(json.dumps(document), encoding="utf-8")
            new.replace(path)

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
        return [Earlier(*(str(kept.get(name)) for name in Earlier._fields)) for kept in found]


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
