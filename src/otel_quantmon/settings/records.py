"""The settings as the rest of the package sees them: checked, typed, without their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, TypeVar

from .table import Place, Setting, settings_at

__all__ = ["ModelSettings", "Settings", "SpanMode"]

_Value = TypeVar("_Value")

SpanMode: TypeAlias = Literal["auto", "all", "parent", "none"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings(_SharedSettings):
    """What holds for one model, as `Settings.for_model` gives it.

    The fields are described in ``docs/configuration.md``; durations are in seconds, ratios from 0 to 1.
    """

    name: str | None = None
    version: str | None = None
    reference: str | None = None
    reference_mapping: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_SharedSettings):
    """What holds for the process, and the exceptions for single models.

    The fields are described in ``docs/configuration.md``; durations are in seconds, sizes in bytes, ratios
    from 0 to 1. ``models`` holds, by model name or glob, the values of `ModelSettings` that differ.

    Raises:
        ValueError: a value is not accepted, or ``models`` names a setting that a model cannot have.
    """

    config: str | None = None
    max_models: int = 200
    queue_size: int = 512
    capture_model_path: bool = False
    reference: Mapping[str, str] = field(default_factory=dict[str, str])
    reference_budget: float = 0.01
    reference_discovery: bool = False
    reference_queue: int = 8
    reference_timeout: float = 30.0
    capture_bytes: int = 64 * 1024**2
    baseline_interval: float = 300.0
    check_budget: float = 0.02
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    _for_model: dict[str, ModelSettings] = field(
        default_factory=dict[str, ModelSettings], init=False, repr=False, compare=False
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

    def for_model(self, name: str) -> ModelSettings:
        """What holds for the model of this name: the cheap look-up of a cache after the first time.

        Later ones win: the process's values; the sections whose glob matches, in their order; the section
        of exactly this name.
        """
        found = self._for_model.get(name)
        if found is None:
            found = self._merged(name)
            if len(self._for_model) >= _CACHE_LIMIT:
                self._for_model.clear()
            self._for_model[name] = found
        return found

    def _merged(self, name: str) -> ModelSettings:
        values: dict[str, Any] = {
            shared.name: getattr(self, shared.name) for shared in fields(_SharedSettings)
        }
        for path in _matching(self.reference, name):
            values["reference"] = path
        for section in _matching(self.models, name):
            values.update(section)
        return ModelSettings(**values)


def _check(setting: Setting, value: object, place: str) -> None:
    """Refuse a Python value that the file could not have given."""
    if value is None and setting.default in (None, "none"):
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


def _matching(entries: Mapping[str, _Value], name: str) -> list[_Value]:
    """The entries that hold for a model, the most specific last."""
    found = [value for glob, value in entries.items() if fnmatchcase(name, glob)]
    # Last for its rank; and a name such as "net[1]" is a glob that does not match itself.
    if name in entries:
        found.append(entries[name])
    return found
