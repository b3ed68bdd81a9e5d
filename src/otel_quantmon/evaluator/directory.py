"""A directory of samples as a source, for workers of one machine, or of several on a shared file system.

A claim is a rename, which one of several workers succeeds with. A claim whose file has not been touched for the time of
the lease is anybody's: its worker has been killed, or hangs.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Verdict
from otel_quantmon.fidelity.remote.spool import CLAIMED, NEW, REJECTED, SUFFIX, Spool

__all__ = ["DirectorySource"]

# Between two looks into an empty directory: a directory tells of no arrival that every platform would pass on.
_LOOK_EVERY = 0.2


class DirectorySource:
    """See `otel_quantmon.evaluator.source.Source`.

    A sample is ``IDENTITY.sample``. In ``claimed`` its time of change is that of the claim.

    Args:
        directory: Directory of the samples; it is made if it does not exist.
        lease: Seconds after which a claim that is not renewed ends.

    Raises:
        EvaluatorError: It cannot be made.
    """

    def __init__(self, directory: str, lease: float) -> None:
        try:
            self._root = Spool(directory).directory
        except OSError as error:
            raise EvaluatorError(f"{directory} cannot be used as a directory of samples: {error}") from error
        self._lease = lease
        self._held: dict[str, Path] = {}
        self._next_look = 0.0
        self._renew_at = 0.0

    def claim(self, most: int, seconds: float) -> list[Claimed]:
        """See `Source.claim`."""
        until = time.monotonic() + seconds
        while True:
            try:
                self._take_back()
                found = self._claimed(most)
            except OSError as error:
                raise EvaluatorError(f"the directory of samples cannot be read: {error}") from error
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(_LOOK_EVERY, left))

    def renew(self) -> None:
        """See `Source.renew`."""
        now = time.monotonic()
        if now < self._renew_at:
            return
        self._renew_at = now + self._lease / 8
        for path in self._held.values():
            # It is somebody else's by now, if the lease has ended.
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str = "") -> None:
        """See `Source.settle`."""
        # Two files of one identity are held as one; the other is taken back when its lease ends.
        path = self._held.pop(claimed.name, None)
        if path is None:
            return
        identity = claimed.name
        with contextlib.suppress(FileNotFoundError):
            if verdict == "accept":
                path.unlink()
            elif verdict == "release":
                path.rename(self._root / NEW / path.name)
            else:
                # The reason first: a file of a sample without one would be a riddle.
                (self._root / REJECTED / f"{identity}.txt").write_text(reason + "\n", encoding="utf-8")
                path.rename(self._root / REJECTED / (identity + SUFFIX))

    def close(self) -> None:
        """See `Source.close`."""
        self._held.clear()

    def _claimed(self, most: int) -> list[Claimed]:
        found: list[Claimed] = []
        with os.scandir(self._root / NEW) as entries:
            for entry in entries:
                if len(found) >= most:
                    break
                if not entry.name.endswith(SUFFIX):
                    continue
                identity = entry.name.removesuffix(SUFFIX)
                path = self._root / CLAIMED / entry.name
                try:
                    # Before it is claimed: its time is that of its writing, and the lease might be over at once.
                    os.utime(entry.path)
                    Path(entry.path).rename(path)
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue  # another worker was faster
                self._held[identity] = path
                found.append(Claimed(data, identity))
        return found

    def _take_back(self) -> None:
        """Put what was claimed too long ago back to what is new."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + self._lease / 4
        ended = time.time() - self._lease
        with os.scandir(self._root / CLAIMED) as entries:
            for entry in entries:
                path = self._root / CLAIMED / entry.name
                with contextlib.suppress(FileNotFoundError):
                    if path not in self._held.values() and entry.stat().st_mtime < ended:
                        path.rename(self._root / NEW / entry.name)
