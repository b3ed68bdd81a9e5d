"""The table of settings against everything that repeats it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from otel_quantmon import environment_variables
from otel_quantmon.semconv import AnomalyType
from otel_quantmon.settings import ModelSettings, Settings
from otel_quantmon.settings.table import ANOMALIES, TABLE, Place, Setting, settings_at

from . import rendering


def _defaults(record: type) -> dict[str, object]:
    instance = record()
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(record) if field.init}


@pytest.mark.parametrize(
    ("record", "place", "besides"),
    [(Settings, Place.ENVIRONMENT, {"models"}), (ModelSettings, Place.MODEL, set[str]())],
)
def test_fields_are_the_table(record: type, place: Place, besides: set[str]) -> None:
    """A setting without its field, a field without its setting and two different defaults are found."""
    declared = settings_at(place)
    defaults = _defaults(record)
    assert defaults.keys() - besides == declared.keys()
    for name, setting in declared.items():
        written = setting.default
        meant = None if written is None else setting.kind.from_toml(written)
        assert (name, defaults[name]) == (name, meant)


def test_a_name_means_one_setting_in_each_place() -> None:
    """`reference` is declared for the process and for a model; no place has two of one name."""
    for place in (Place.ENVIRONMENT, Place.FILE, Place.MODEL):
        assert len(settings_at(place)) == len([setting for setting in TABLE if place in setting.places])


def test_only_the_file_of_settings_is_kept_out_of_the_file() -> None:
    """Whatever the environment can set, the file can too, except where the file is."""
    assert settings_at(Place.ENVIRONMENT).keys() - settings_at(Place.FILE).keys() == {"config"}


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_help_is_one_sentence(setting: Setting) -> None:
    """The help fits a table cell: one line, a full stop, no column separator; so does what is accepted."""
    assert setting.help.endswith(".")
    assert not set("\n|") & set(setting.help + setting.kind.accepts)


@pytest.mark.parametrize(
    ("path", "render"),
    [
        (rendering.CONSTANTS_FILE, rendering.environment_variables),
        (rendering.SCHEMA_FILE, rendering.schema),
        (rendering.DOCUMENT, lambda: rendering.tables(rendering.DOCUMENT.read_text(encoding="utf-8"))),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_rendered_files_are_up_to_date(path: Path, render: rendering.Render) -> None:
    """Constants, schema and documentation say what the table says; `rendering.py` writes them."""
    assert path.read_text(encoding="utf-8") == render()


def test_each_setting_has_its_constants() -> None:
    """Both spellings of each variable are importable under their own name."""
    for name in settings_at(Place.ENVIRONMENT):
        for variable in (f"QUANTMON_{name.upper()}", f"OTEL_PYTHON_QUANTMON_{name.upper()}"):
            assert getattr(environment_variables, variable) == variable


def test_importing_reads_no_parser() -> None:
    """Settings cost no import that only a file or a mistake needs, even in a process that sets nothing."""
    # The package's own __init__ is left out: it is not what this measures.
    program = """if True:
        import sys, types
        package = sys.modules["otel_quantmon"] = types.ModuleType("otel_quantmon")
        package.__path__ = [sys.argv[1]]
        import otel_quantmon.settings
        import otel_quantmon.environment_variables
        otel_quantmon.settings.load_settings({"QUANTMON_TIMEOUT": "200ms"}).for_model("any")
        print(*{"tomllib", "tomli", "json", "difflib", "numpy", "opentelemetry"} & sys.modules.keys())
    """
    package = rendering.CONSTANTS_FILE.parent
    result = subprocess.run(
        [sys.executable, "-S", "-c", program, str(package)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_types_of_anomaly_are_those_of_the_telemetry() -> None:
    """The table has a copy, for processes that load no names of telemetry."""
    assert get_args(AnomalyType) == ANOMALIES
