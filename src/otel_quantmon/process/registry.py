"""What in this process has to know of forks and of the process's end."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Registered", "register", "registered"]


class Registered(Protocol):
    """What observes models in this process."""

    def fork_lock(self) -> Any:
        """Return the lock that a fork waits for, a `threading.RLock`."""
        ...

    def before_fork(self) -> None:
        """In the process that is about to fork, do what a child without its threads could not do safely."""
        ...

    def after_fork(self) -> None:
        """In a child, forget what the parent reports, and what threads held that are not here."""
        ...

    def exit_timeout(self) -> float | None:
        """Seconds that a child may take to deliver at its end; None if it has nothing to deliver."""
        ...

    def exporting(self) -> list[Any]:
        """Return the providers that export what was observed, each with a ``force_flush``."""
        ...


_registered: list[Registered] = []


def register(one: Registered) -> None:
    """Tell ``one`` of forks and of the end, for as long as this process lives."""
    _registered.append(one)


def registered() -> list[Registered]:
    """All that were ever registered in this process."""
    return list(_registered)
