"""From the environment and the file to `Settings`: what is wrong is said once and left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from .records import Settings
from .table import OTEL_PREFIX, PREFIX, Place, Setting, settings_at
from .tomlfile import read_toml

__all__ = ["load_settings", "read_settings", "setting_sources"]

_logger = logging.getLogger("otel_quantmon")

# What was said in this process: a fork, or an instrumentor switched on again, reads the same settings.
_said: set[str] = set()

_SHOWN_LENGTH = 80


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process. Never raises: what cannot be used is warned of and left out.

    Later sources win: the defaults; the file that ``QUANTMON_CONFIG`` names; ``QUANTMON_*`` variables;
    ``OTEL_PYTHON_QUANTMON_*`` variables, which the flags of ``opentelemetry-instrument`` set. What a model's
    section in the file says wins over all of them, for this model.

    Args:
        environ: Variables to read instead of ``os.environ``. An empty one counts as not set.
    """
    environ = os.environ if environ is None else environ
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    values = _from_environment(given, PREFIX) | _from_environment(given, OTEL_PREFIX)
    models: dict[str, Mapping[str, Any]] = {}
    config = values.get("config")
    if config is not None:
        values["config"] = config = _absolute(config)
        in_file, models = _from_file(config, _warn)
        values = in_file | values
    return Settings(**values, models=models)


def setting_sources(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting of the process that is given comes from: the variable, or the file; by the setting's name."""
    environ = os.environ if environ is None else environ
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    sources: dict[str, str] = {}
    config: str | None = None
    for prefix in (PREFIX, OTEL_PREFIX):
        values = _from_environment(given, prefix)
        config = values.get("config", config)
        sources |= {name: prefix + name.upper() for name in values}
    if config is not None:
        config = _absolute(config)
        sources = dict.fromkeys(_from_file(config, _warn)[0], config) | sources
    return sources


def read_settings(path: str) -> Settings:
    """Return the settings of a file, and nothing of the environment.

    Raises:
        ValueError: It cannot be read, or anything in it is not accepted; the message has a line for each mistake.
    """
    problems: list[str] = []
    values, models = _from_file(os.path.abspath(path), problems.append)
    if problems:
        raise ValueError("\n".join(problems))
    return Settings(**values, models=models)


def _absolute(path: str) -> str:
    """The path in a form that an application which changes its directory later does not make another one."""
    try:
        return os.path.abspath(path)
    except OSError:
        # The directory that the process is in has been removed.
        return path


def _from_environment(environ: Mapping[str, str], prefix: str) -> dict[str, Any]:
    known = {prefix + name.upper(): setting for name, setting in settings_at(Place.ENVIRONMENT).items()}
    only_models = {prefix + name.upper() for name in settings_at(Place.MODEL)} - known.keys()
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        # QUANTMON_TEST_*: of the project's own tests, and inherited by what they start.
        if not variable.startswith(prefix) or variable.startswith(PREFIX + "TEST_"):
            continue
        if variable in known:
            setting = known[variable]
            _keep(values, setting, text, setting.kind.from_text, variable, _warn)
        elif variable in only_models:
            _warn(f"{variable} is ignored: it can be set only in a model's section of the file")
        else:
            _tell_unknown(variable, known, "variable", "", _warn)
    return values


def _from_file(
    path: str, tell: Callable[[str], object]
) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Return the process's values and the models' sections."""
    try:
        document = read_toml(path)
    except ValueError as error:
        tell(f"{PREFIX}CONFIG: {error}; no setting is taken from it" if tell is _warn else str(error))
        return {}, {}
    directory = os.path.dirname(path)
    sections = document.pop("models", {})
    values = _from_table(document, Place.FILE, f"{path}: ", directory, tell)
    models: dict[str, Mapping[str, Any]] = {}
    if not isinstance(sections, dict):
        tell(
            f'{path}: models is {_shown(sections)} and is ignored; write sections, as [models."name or glob"]'
        )
        return values, models
    for pattern, table in cast("dict[str, object]", sections).items():
        place = f'{path}: models."{pattern}"'
        if isinstance(table, dict):
            section = cast("dict[str, object]", table)
            models[pattern] = _from_table(section, Place.MODEL, place + ".", directory, tell)
        else:
            tell(f"{place} is {_shown(table)} and is ignored; write a section of settings")
    return values, models


def _from_table(
    table: Mapping[str, object], place: Place, prefix: str, directory: str, tell: Callable[[str], object]
) -> dict[str, Any]:
    known = settings_at(place)
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name in known:
            _keep(values, known[name], value, known[name].kind.from_toml, prefix + name, tell)
            if name in values:
                values[name] = known[name].kind.located(values[name], directory)
        elif name in settings_at(Place.FILE):
            tell(f"{prefix}{name} is ignored: it holds for the whole process, set it above the sections")
        elif name in settings_at(Place.MODEL):
            tell(f'{prefix}{name} is ignored: it can be set only in a section, as [models."name or glob"]')
        elif name in settings_at(Place.ENVIRONMENT):
            tell(f"{prefix}{name} is ignored: it can be set only in the environment")
        else:
            _tell_unknown(name, known, "setting", prefix, tell)
    return values


def _keep(
    values: dict[str, Any],
    setting: Setting,
    value: Any,
    read: Callable[[Any], Any],
    place: str,
    tell: Callable[[str], object],
) -> None:
    try:
        values[setting.name] = read(value)
    except ValueError:
        tell(f"{place}: {_shown(value)} is not accepted and is ignored; give {setting.kind.accepts}")


def _tell_unknown(
    name: str, known: Iterable[str], noun: str, prefix: str, tell: Callable[[str], object]
) -> None:
    from difflib import get_close_matches  # only a mistake needs it

    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    tell(f"{prefix}{name} is ignored: no such {noun}; {hint}")


def _warn(message: str) -> None:
    if message not in _said:
        _said.add(message)
        # A name that is no valid text would end in the logging handler's own traceback.
        _logger.warning("%s", message.encode(errors="backslashreplace").decode())


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    try:
        text = repr(value)
    except ValueError:
        return "a number too long to show"  # Python refuses to write integers of over 4300 digits
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."
