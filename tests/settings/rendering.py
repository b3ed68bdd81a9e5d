"""Renders from the table of settings the three files that repeat it.

    python tests/settings/rendering.py

writes them anew: `environment_variables.py`, `settings/schema.json`, and the tables between the markers in
`docs/configuration.md`. `test_table.py` fails while one of them is behind the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from otel_quantmon.settings.table import OTEL_PREFIX, PREFIX, TABLE, Place, settings_at

ROOT = Path(__file__).parents[2]

Render: TypeAlias = Callable[[], str]

_HEAD = '''"""Names of the environment variables, one pair for each setting.

The entry point `opentelemetry_environment_variables` names this module: `opentelemetry-instrument` makes a
flag of every attribute that starts with OTEL_, without OTEL_PYTHON_ and in lower case, as in
`--quantmon_timeout 200ms`, and sets the variable of the attribute's name.

Written by `tests/settings/rendering.py`.
"""

from __future__ import annotations

'''


def environment_variables() -> str:
    """The source of `environment_variables.py`."""
    names = [
        prefix + name.upper() for name in settings_at(Place.ENVIRONMENT) for prefix in (PREFIX, OTEL_PREFIX)
    ]
    exported = "__all__ = [\n" + "".join(f'    "{name}",\n' for name in sorted(names)) + "]\n\n"
    return _HEAD + exported + "".join(f'{name} = "{name}"\n' for name in names)


def schema() -> str:
    """The JSON schema of the TOML file."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of otel-quantmon",
        **_object(Place.FILE),
    }
    document["properties"]["models"] = {
        "description": "Settings of single models, by model name, path, a glob of either, or digest.",
        "type": "object",
        "additionalProperties": _object(Place.MODEL),
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _object(place: Place) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            setting.name: {
                "description": setting.help,
                **({} if setting.default is None or place is Place.MODEL else {"default": setting.default}),
                **setting.kind.schema,
            }
            for setting in settings_at(place).values()
        },
    }


def tables(document: str) -> str:
    """The document with the tables between its markers rendered anew."""
    selections: dict[str, Callable[[Place], bool]] = {
        "process": lambda places: Place.ENVIRONMENT in places,
        "model": lambda places: places == Place.MODEL,
    }
    for name, selected in selections.items():
        rows = [
            "| setting | default | in a section | accepts | what it is |",
            "| --- | --- | --- | --- | --- |",
        ]
        for setting in TABLE:
            if selected(setting.places):
                default = "" if setting.default in (None, {}) else f"`{json.dumps(setting.default)}`"
                in_section = "yes" if Place.MODEL in setting.places else ""
                cells = (f"`{setting.name}`", default, in_section, setting.kind.accepts, setting.help)
                rows.append(f"| {' | '.join(cells)} |")
        start, end = f"<!-- {name} settings -->\n", f"\n<!-- end of {name} settings -->"
        before, after = document[: document.index(start)], document[document.index(end) :]
        document = before + start + "\n".join(rows) + after
    return document


CONSTANTS_FILE = ROOT / "src/otel_quantmon/environment_variables.py"
SCHEMA_FILE = ROOT / "src/otel_quantmon/settings/schema.json"
DOCUMENT = ROOT / "docs/configuration.md"

if __name__ == "__main__":
    CONSTANTS_FILE.write_text(environment_variables(), encoding="utf-8")
    SCHEMA_FILE.write_text(schema(), encoding="utf-8")
    DOCUMENT.write_text(tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
