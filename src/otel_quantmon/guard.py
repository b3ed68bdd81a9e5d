"""One place where the project's own failures end: logged once, and never seen by the application.

In the hot path the guard is a bare ``except Exception`` that calls `internal_error`: a ``try`` that does not
raise costs nothing. Elsewhere `guarded` is the context manager of the same meaning; it keeps no state, so
one instance serves every thread and guarding allocates nothing.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from types import TracebackType

__all__ = ["guarded", "internal_error"]

_logger = logging.getLogger("otel_quantmon")

# A failure in the hot path would otherwise log at the rate of the inferences.
_MOST_PLACES = 100
_reported: set[tuple[str, int, type[BaseException]]] = set()


def internal_error(error: Exception) -> None:
    """Report ``error``, raised by code of this project, and swallow it.

    Logged with its traceback the first time that it comes from a place in the code. Raised again under
    pytest, so that a bug of ours fails the test that met it; ``QUANTMON_TEST_GUARD=swallow`` keeps even
    a test in production's behaviour.
    """
    if "PYTEST_CURRENT_TEST" in os.environ and os.environ.get("QUANTMON_TEST_GUARD") != "swallow":
        raise error
    place = _place(error)
    if place in _reported or len(_reported) >= _MOST_PLACES:
        return
    _reported.add(place)
    # A log handler that raises is the last thing that may stop a run.
    with suppress(Exception):
        _logger.error(
            "otel-quantmon failed in itself and steps aside; the application is not affected", exc_info=error
        )


def _place(error: BaseException) -> tuple[str, int, type[BaseException]]:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "", 0, type(error)
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno, type(error)


class _Guarded:
    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # KeyboardInterrupt and SystemExit belong to the application, whatever code they happened to meet.
        if not isinstance(error, Exception):
            return False
        internal_error(error)
        return True


guarded = _Guarded()
