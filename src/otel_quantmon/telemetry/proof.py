"""What has to be proven of the SDK before a way past its public functions is taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Job", "Proof"]

Job: TypeAlias = Callable[[], object]


class Proof:
    """Whether what ``prove`` finds out holds in this process.

    A proof makes throw-away providers and takes milliseconds, so it is made on another thread than the application's.

    Attributes:
        given: True once it is proven.
    """

    __slots__ = ("_asked_in", "_made_in", "_prove", "given")

    def __init__(self, prove: Callable[[], bool]) -> None:
        self.given = False
        self._prove = prove
        self._asked_in: int | None = None
        self._made_in: int | None = None

    def ask(self, submit: Callable[[Job], object]) -> None:
        """Have the proof made by ``submit``, which runs a job on another thread; the first time that this is asked."""
        # A process that was forked in between has no such thread.
        if not self.given and self._asked_in != os.getpid():
            self._asked_in = os.getpid()
            submit(self._try)

    def settle(self) -> None:
        """Make the proof now if none was made in this process, or while another thread is still at it."""
        if not self.given and self._made_in != os.getpid():
            self._try()

    def _try(self) -> None:
        self.given = self._prove()
        self._made_in = os.getpid()
