"""Where in a fleet a change is: everywhere, in one version of the model, in one service, or on some hosts.

Each process that sends samples gives evidence of two kinds for the time of the change: that it has moved with it, and
that it has stayed as it was; both are e-values, so those of several processes multiply. Nothing is said before the rest
of the fleet has given evidence, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Place", "Scope", "Subject", "Witness", "lacking", "place"]

Scope = Literal["everywhere", "version", "service", "host", "unknown"]

# Evidence that decides for a side, and that a process has if it has decided by itself.
_DECIDED = math.log(20.0)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who sends samples: a service on a host, with one version of the model.

    Attributes:
        host, service: Names.
        version: Digest of the model; empty where it is not known.
        instructions: Instruction sets of the host's CPU, as `quantmon.cpu.isa` has them.
    """

    host: str
    service: str
    version: str
    instructions: str


@dataclass(frozen=True, slots=True)
class Witness:
    """Attributes: ``moved``, ``stayed``: logarithms of e-values; ``certain``: it has decided that it has moved."""

    moved: float
    stayed: float
    certain: bool = False

    @property
    def still(self) -> bool:
        """True if what was said lately is evidence enough that it has moved, whatever was decided before."""
        return self.moved >= _DECIDED


@dataclass(frozen=True, slots=True)
class Place:
    """Where a change is.

    Attributes:
        scope: Kind of place.
        hosts: Names of the hosts that have moved, unless it is everywhere.
        versions: Digests of the versions that have moved, where that is the place.
        services: Names of the services that have moved, where that is the place.
        lacking: Instruction sets that all hosts that stayed have, and none that moved.
    """

    scope: Scope
    hosts: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def same(self, other: Place) -> bool:
        """True if the other is no news: hosts follow one another where it is not they that are the place."""
        if self.scope == other.scope != "host":
            return (self.versions, self.services) == (other.versions, other.services)
        return self == other

    def to_wire(self) -> dict[str, Any]:
        """Return plain JSON values."""
        lists = {name: list(getattr(self, name)) for name in ("hosts", "versions", "services", "lacking")}
        return {"scope": self.scope, **lists}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Place:
        """Return what `to_wire` was of."""
        lists = (tuple(wire[name]) for name in ("hosts", "versions", "services", "lacking"))
        return cls(wire["scope"], *lists)


def place(testimonies: Mapping[Subject, Witness], *, patient: bool = True) -> Place | None:
    """Return where the change is; None while the evidence does not tell.

    Args:
        testimonies: Witness of each that has been heard lately.
        patient: False if a single host is to be named although others that run the same version may follow.
    """
    least = math.log(20.0 * max(1, len(testimonies)))
    moved = {who for who, said in testimonies.items() if said.certain or said.moved >= least}
    rest = {who: said for who, said in testimonies.items() if who not in moved}
    if not moved:
        return _pooled(rest)
    if not rest:
        # One alone has nobody to be compared with.
        return Place("unknown", _hosts(moved)) if len(moved) == 1 else Place("everywhere")
    side = _side(list(rest.values()))
    if side == "moved":
        return Place("everywhere")
    if side == "open":
        return None
    versions = {who.version for who in moved}
    same = {who for who in rest if who.version in versions}
    if same and len(same) < len(rest):
        side = _side([rest[who] for who in same])
        if side == "open" and patient:
            return None
        if side == "moved":
            moved |= same
    return _apart(moved, set(rest) - moved)


def lacking(moved: set[Subject], stayed: set[Subject]) -> tuple[str, ...]:
    """Return the instruction sets that all of ``stayed`` have and none of ``moved``, in the order of the former."""
    if not moved or not stayed:
        return ()
    first, *others = [who.instructions.split("+")[1:] for who in sorted(stayed, key=_order)]
    had = {one for who in moved for one in who.instructions.split("+")}
    return tuple(one for one in first if all(one in other for other in others) and one not in had)


def _pooled(rest: Mapping[Subject, Witness]) -> Place | None:
    """Where no process has decided by itself: all together, or all of one version."""
    if math.fsum(said.moved for said in rest.values()) < _DECIDED:
        return None
    versions: dict[str, set[Subject]] = {}
    for who in rest:
        versions.setdefault(who.version, set()).add(who)
    sides = {version: _side([rest[who] for who in group]) for version, group in versions.items()}
    if len(versions) > 1 and set(sides.values()) == {"moved", "stayed"}:
        gone = {who for who in rest if sides[who.version] == "moved"}
        return _apart(gone, set(rest) - gone)
    top = max(said.moved for said in rest.values())
    if math.fsum(said.moved for said in rest.values()) - top < _DECIDED:
        return None
    return Place("everywhere")


def _side(said: list[Witness]) -> str:
    moved, stayed = math.fsum(one.moved for one in said), math.fsum(one.stayed for one in said)
    if moved >= _DECIDED and moved > stayed:
        return "moved"
    return "stayed" if stayed >= _DECIDED else "open"


def _apart(moved: set[Subject], stayed: set[Subject]) -> Place:
    hosts = _hosts(moved)
    without = lacking(moved, stayed)
    versions = {who.version for who in moved}
    if not versions & {who.version for who in stayed}:
        return Place("version", hosts, tuple(sorted(versions)), lacking=without)
    services = {who.service for who in moved}
    shared = {who.host for who in moved} & {who.host for who in stayed}
    if not services & {who.service for who in stayed} and (len(hosts) > 1 or shared):
        return Place("service", hosts, services=tuple(sorted(services)))
    return Place("unknown" if shared == set(hosts) else "host", hosts, lacking=without)


def _hosts(subjects: set[Subject]) -> tuple[str, ...]:
    return tuple(sorted({who.host for who in subjects}))


def _order(who: Subject) -> tuple[str, ...]:
    return who.host, who.service, who.version, who.instructions
