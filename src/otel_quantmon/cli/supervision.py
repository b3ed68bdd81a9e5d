"""Runs a command as if it had been started by itself: its input and output, its signals, its exit status."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Supervised"]

# What a terminal sends goes to all of a job at once; what somebody sends to this process alone is passed on.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
# Windows does not have all of them, and is to be told so by the commands rather than by an import that fails.
_PASSED: set[signal.Signals] = {getattr(signal, name) for name in _NAMES if hasattr(signal, name)}
_SI_KERNEL = 0x80
_PR_SET_PDEATHSIG = 1


class Supervised:
    """The place of a command: from its construction on signals are held back in all threads that begin later.

    On Linux the command is ended by SIGTERM if this process is killed, and the kernel says who sent a signal.
    Elsewhere a command whose supervisor is killed goes on, and Ctrl-C is taken to be a terminal's if there is one.
    """

    def __init__(self) -> None:
        self._precise = hasattr(signal, "sigtimedwait")
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self._process: subprocess.Popen[bytes] | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self.hold()

    def hold(self) -> None:
        """Hold signals back, from now on or again."""
        if self._precise:
            signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED | {signal.SIGCHLD})
        else:
            self._handlers = {
                number: signal.signal(number, self._pass_from_handler)
                for number in _PASSED
                if signal.getsignal(number) is not signal.SIG_IGN
            }

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], output: int | None = None
    ) -> None:
        """Start ``command`` in its place. To be called before any thread is started.

        Args:
            command: The command.
            environment: Its environment.
            output: Descriptor that its standard output goes to; None for that of this process.

        Raises:
            OSError: The command cannot be started.
        """
        before, parent = self._before, os.getpid()
        linux = sys.platform == "linux"
        library = ctypes.CDLL(None)

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if linux:
                library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != parent:
                    os.kill(os.getpid(), signal.SIGTERM)

        # There is one thread so far, so that nothing can hold a lock in the child.
        self._process = subprocess.Popen(  # noqa: S603  what the user asks for
            list(command),
            env=dict(environment),
            stdout=output,
            preexec_fn=prepare,  # noqa: PLW1509  see above
        )

    def wait(self, tick: Callable[[], object], seconds: float) -> int:
        """Wait for the command's end, pass signals on, and call ``tick`` about every ``seconds``.

        Returns:
            Its exit status, 128 + n if signal n ended it.
        """
        process = self._process
        if process is None:
            raise ValueError("nothing has been started")
        while process.poll() is None:
            if self._precise:
                self._pass_next(process, seconds)
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
            if process.poll() is None:
                tick()
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def release(self) -> None:
        """Take signals again as before. Those that came after the command's end were for it, and are left out."""
        if self._precise:
            while self._process is not None and signal.sigtimedwait(_PASSED, 0) is not None:
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _pass_next(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        found = signal.sigtimedwait(_PASSED | {signal.SIGCHLD}, seconds)
        if found is not None and found.si_signo in _PASSED and found.si_code != _SI_KERNEL:
            process.send_signal(found.si_signo)

    def _pass_from_handler(self, number: int, _: object) -> None:
        of_terminal = number in {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP} and os.isatty(0)
        if self._process is not None and not of_terminal:
            self._process.send_signal(number)
