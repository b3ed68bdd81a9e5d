"""The settings as the rest of the package sees them: checked, typed, without their sources."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, TypeVar

from .kinds import OPTIONAL_DURATION
from .table import Place, Setting, settings_at

__all__ = ["ModelSettings", "Settings", "SpanMode"]

_Value = TypeVar("_Value")

SpanMode: TypeAlias = Literal["auto", "all", "parent", "none"]

DIGEST_PREFIX = "sha256:"
"""Start of a section's name that is the beginning of a model's digest."""

# Names are the application's, so nothing bounds how many are asked for; past this the cache starts again.
_CACHE_LIMIT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _SharedSettings:
    """What may be set for the whole process and for a single model. Durations are in seconds."""

    enabled: bool = True
    spans: SpanMode = "auto"
    span_budget: float = 0.05
    timeout: float | None = None
    warmup: int = 10
    window_size: int = 1000
    window_age: float = 300.0
    baseline_calls: int = 100
    baseline_duration: float | None = None
    baseline: str | None = None
    anomalies: tuple[str, ...] | None = None
    anomaly_change: float = 0.0
    remote_interval: float = 1.0
    remote_inputs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings(_SharedSettings):
    """What holds for one model, as `Settings.for_model` gives it.

    The fields are described in ``docs/configuration.md``; durations are in seconds, ratios from 0 to 1.
    """

    name: str | None = None
    version: str | None = None
    reference: str | None = None
    reference_mapping: Mapping[str, str] = field(default_factory=dict[str, str])
    reference_batch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_SharedSettings):
    """What holds for the process, and the exceptions for single models.

    The fields are described in ``docs/configuration.md``; durations are in seconds, sizes in bytes, ratios
    from 0 to 1. ``models`` holds the values of `ModelSettings` that differ, by model name, path, a glob of
    either, or digest.

    Raises:
        ValueError: A value is not accepted, or ``models`` names a setting that a model cannot have.
    """

    config: str | None = None
    max_models: int = 200
    queue_size: int = 512
    exit_timeout: float | None = 1.0
    capture_model_path: bool = False
    reference: Mapping[str, str] = field(default_factory=dict[str, str])
    reference_budget: float = 0.01
    reference_discovery: bool = False
    reference_queue: int = 8
    reference_timeout: float = 30.0
    remote_directory: str | None = None
    remote_store: str | None = None
    remote_size: int = 512 * 1024
    capture_bytes: int = 64 * 1024**2
    baseline_interval: float = 300.0
    check_budget: float = 0.02
    false_alarms: float = 1.0
    judgement_interval: float = 0.1
    baseline_state: str | None = None
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    _for_model: dict[tuple[str | None, ...], ModelSettings] = field(
        default_factory=dict[tuple[str | None, ...], ModelSettings], init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name, setting in settings_at(Place.ENVIRONMENT).items():
            _check(setting, getattr(self, name), name)
        known = settings_at(Place.MODEL)
        for pattern, section in self.models.items():
            for name, value in section.items():
                if name not in known:
                    raise ValueError(
                        f"models[{pattern!r}]: no setting {name!r}; there are {', '.join(known)}"
                    )
                _check(known[name], value, f"models[{pattern!r}][{name!r}]")

    @property
    def by_digest(self) -> bool:
        """True if a section or a reference is named by a model's digest."""
        return any(key.startswith(DIGEST_PREFIX) for key in (*self.models, *self.reference))

    def name_of(self, path: str | None, digest: str | None) -> str | None:
        """Return the name that a section for exactly this path, this digest or a glob of paths gives a model."""
        sections = _matching(self.models, (), path, digest)
        return next((section["name"] for section in reversed(sections) if section.get("name")), None)

    def for_model(
        self, name: str, *, before: str | None = None, path: str | None = None, digest: str | None = None
    ) -> ModelSettings:
        """Return what holds for a model: the cheap look-up of a cache after the first time.

        Later ones win: the process's values; the sections whose glob matches the name or the path, in their order; the
        section of exactly this name; of exactly this path; of the digest.

        Args:
            name: Name of the model, before a section's ``name`` replaces it.
            before: The name that its file had before it was replaced, which still counts.
            path: Path of its file.
            digest: ``sha256:…``.
        """
        key = name, before, path, digest
        found = self._for_model.get(key)
        if found is None:
            names = (name,) if before is None else tuple(dict.fromkeys((before, name)))
            found = self._merged(names, path, digest)
            if len(self._for_model) >= _CACHE_LIMIT:
                self._for_model.clear()
            self._for_model[key] = found
        return found

    def _merged(self, names: tuple[str, ...], path: str | None, digest: str | None) -> ModelSettings:
        values: dict[str, Any] = {
            shared.name: getattr(self, shared.name) for shared in fields(_SharedSettings)
        }
        for reference in _matching(self.reference, names, path, digest):
            values["reference"] = reference
        for section in _matching(self.models, names, path, digest):
            values.update(section)
        return ModelSettings(**values)


def _check(setting: Setting, value: object, place: str) -> None:
    """Refuse a Python value that the file could not have given."""
    if value is None and (setting.default is None or setting.kind is OPTIONAL_DURATION):
        return
    try:
        # Text such as "200ms" is read here, but is not what the field holds.
        accepted = setting.kind.from_toml(value) == value
    except ValueError:
        accepted = False
    if not accepted:
        raise ValueError(
            f"{place}: {value!r} is not accepted; give {setting.kind.accepts} "
            "(from Python: durations in seconds, sizes in bytes, None for none)"
        )


def _matching(
    entries: Mapping[str, _Value], names: tuple[str, ...], path: str | None, digest: str | None
) -> list[_Value]:
    """Return the entries that hold for a model, the most specific last."""
    place = None if path is None else path.replace(os.sep, "/")

    def matches(glob: str) -> bool:
        if any(fnmatchcase(name, glob) for name in names):
            return True
        return place is not None and _is_of_paths(glob) and fnmatchcase(place, glob.replace(os.sep, "/"))

    found = [value for glob, value in entries.items() if matches(glob)]
    # Last for their rank; and a name such as "net[1]" is a glob that does not match itself.
    found += [entries[exact] for exact in (*names, path) if exact is not None and exact in entries]
    if digest is not None:
        found += [
            value
            for start, value in entries.items()
            if len(start) > len(DIGEST_PREFIX)
            and start.startswith(DIGEST_PREFIX)
            and digest.startswith(start)
        ]
    return found


def _is_of_paths(glob: str) -> bool:
    # Names have slashes too, as encoder/model, but none in front.
    return glob.startswith(("*/", "**/")) or os.path.isabs(glob)
