"""Requests to the example service, from as many clients as wanted."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from stack.test_stack_service import Classifier


@contextmanager
def requests(
    asked: Classifier,
    *,
    clients: int = 1,
    pause: float = 0.1,
    contents: Sequence[bytes] = (b"import this\n",),
) -> Iterator[None]:
    """Ask about the contents in turn until the block ends.

    Each client pauses so many seconds between two requests. One that fails is the service's own affair: an
    overloaded one answers 500.
    """
    ended = threading.Event()

    def ask() -> None:
        for content in itertools.cycle(contents):
            if ended.wait(pause):
                return
            with contextlib.suppress(OSError):
                asked.classify(content)

    with ThreadPoolExecutor(clients) as executor:
        asking = [executor.submit(ask) for _ in range(clients)]
        try:
            yield
        finally:
            ended.set()
    for client in asking:
        client.result()
