"""A directory of samples as a source, for workers of one machine, or of several on a shared file system.

Samples come in the order in which they were written: what is judged is whether they change, and a change within what
waits is found by those before it. A claim is a rename, which one of several workers succeeds with. A claim whose file
has not been touched for the time of the lease is anybody's: its worker has been killed, or hangs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from otel_quantmon.evaluator.dead_letters import DeadLetters
from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Verdict
from otel_quantmon.fidelity.remote.record import SampleError, decode
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

    unreached = None

    def __init__(self, directory: str, lease: float) -> None:
        try:
            self._root = Spool(directory).directory
        except OSError as error:
            raise EvaluatorError(f"{directory} cannot be used as a directory of samples: {error}") from error
        self._dead = DeadLetters(self._root / REJECTED)
        self._lease = lease
        # Of each that is held its file, and the time that it had in `new`.
        self._held: dict[str, tuple[Path, int]] = {}
        # Names and times of files of `new`, the oldest first. It is used up before that is read again, which takes long
        # where many wait.
        self._listed: deque[tuple[int, str]] = deque()
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
        for path, _ in self._held.values():
            # It is somebody else's by now, if the lease has ended.
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str = "") -> None:
        """See `Source.settle`."""
        # Two files of one identity are held as one; the other is taken back when its lease ends.
        held = self._held.pop(claimed.name, None)
        if held is None:
            return
        path, written = held
        with contextlib.suppress(FileNotFoundError):
            if verdict == "accept":
                path.unlink()
            elif verdict == "release":
                # It has its place again.
                os.utime(path, ns=(written, written))
                path.rename(self._root / NEW / path.name)
            else:
                self._dead.put(path, claimed.name, reason)

    def close(self) -> None:
        """See `Source.close`."""
        self._held.clear()

    def _claimed(self, most: int) -> list[Claimed]:
        found: list[Claimed] = []
        if not self._listed:
            self._listed.extend(sorted(self._waiting()))
        while self._listed and len(found) < most:
            written, name = self._listed.popleft()
            identity = name.removesuffix(SUFFIX)
            new, path = self._root / NEW / name, self._root / CLAIMED / name
            try:
                # Before it is claimed: its time is that of its writing, and the lease might be over at once.
                os.utime(new)
                new.rename(path)
                data = path.read_bytes()
            except FileNotFoundError:
                continue  # another worker was faster
            self._held[identity] = path, written
            found.append(Claimed(data, identity))
        return found

    def _waiting(self) -> Iterator[tuple[int, str]]:
        with os.scandir(self._root / NEW) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.name.endswith(SUFFIX):
                        yield entry.stat().st_mtime_ns, entry.name

    def _take_back(self) -> None:
        """Put what was claimed too long ago back to what is new."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + self._lease / 4
        ended = time.time() - self._lease
        held = {path for path, _ in self._held.values()}
        with os.scandir(self._root / CLAIMED) as entries:
            for entry in entries:
                path, new = self._root / CLAIMED / entry.name, self._root / NEW / entry.name
                with contextlib.suppress(FileNotFoundError):
                    if path not in held and entry.stat().st_mtime < ended:
                        # The time of the claim has taken that of its writing: that of the call is nearly the same.
                        called = _time_of_call(path)
                        path.rename(new)
                        if called is not None:
                            os.utime(new, ns=(called, called))


def _time_of_call(path: Path) -> int | None:
    try:
        return decode(path.read_bytes()).time
    except SampleError:
        return None
