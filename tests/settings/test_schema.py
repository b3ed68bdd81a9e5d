"""The JSON schema that ships with the package, against the loader it describes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from otel_quantmon.settings import Settings
from otel_quantmon.settings.table import Place, settings_at

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = json.loads(files("otel_quantmon.settings").joinpath("schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

_GOOD = [
    "",
    'enabled = false\nspans = "parent"\nspan_budget = 0\ntimeout = "200ms"\nwindow_age = 60\nwarmup = 0',
    'timeout = "none"\nbaseline_duration = 0.005\ncapture_bytes = "16MiB"\nqueue_size = 8',
    'capture_bytes = 1000\nreference_timeout = "50 µs"\nreference_discovery = true',
    '[reference]\n"a*" = "a.onnx"\n[models.b]\nreference = "b.onnx"\nname = "B"\nversion = "1"',
    '[models."*"]\nenabled = true\nreference_mapping = { "out:0" = "probabilities" }',
    "[models]\n[models.a]",
]
_BAD = [
    'enabled = "yes"',
    'spans = "ALL"',
    "span_budget = 1.5",
    'span_budget = "0.5"',
    'timeout = "0ms"',
    'timeout = "soon"',
    "timeout = -1",
    'window_age = "none"',
    "warmup = -1",
    "warmup = 1.5",
    "warmup = true",
    "max_models = 0",
    'capture_bytes = "64 megabytes"',
    "capture_bytes = 0",
    "baseline = 1",
    'baseline = " "',
    'baseline = "a\\u0000"',
    'reference = "a.onnx"',
    "reference.a = 1",
    'config = "other.toml"',
    'name = "x"',
    "unknown = 1",
    "models = 1",
    "models.a = 1",
    "[models.a]\nqueue_size = 1",
    "[models.a]\nreference.b = 'c'",
    "[models.a]\nunknown = 1",
    "timeout = 1979-05-27",
]


def test_the_schema_is_a_schema() -> None:
    """It is valid by the draft it names."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize(("toml", "good"), [(t, True) for t in _GOOD] + [(t, False) for t in _BAD])
def test_loader_and_schema_agree_on_files(
    toml: str, good: bool, load: Callable[..., Settings], warnings: Callable[[], list[str]]
) -> None:
    """What an editor underlines is what the loader warns of, and nothing else is."""
    load(toml)
    assert VALIDATOR.is_valid(tomllib.loads(toml)) is good
    assert (warnings() == []) is good


_numbers = (
    st.integers(-2, 2**62) | st.floats(allow_nan=False) | st.sampled_from([0, 1, 1.0, 10**15, 2592000.0])
)
_units = st.sampled_from(
    ["", "us", "µs", "μs", "ms", "s", "m", "h", "d", "B", "kB", "MiB", "tib", " GB", "MI"]
)
_digits = st.from_regex(r"\A[0-9]{1,4}(\.[0-9]{1,4})?\Z")
_texts = st.builds("{}{}{}".format, st.sampled_from(["", " ", "-"]), _digits, _units) | st.text(max_size=5)
_scalars = st.booleans() | _numbers | _texts | st.sampled_from(["none", "auto", "all", "0", "true"])


@given(
    place=st.sampled_from([Place.FILE, Place.MODEL]),
    value=_scalars
    | st.lists(_scalars, max_size=2)
    | st.dictionaries(st.text(max_size=3), _scalars, max_size=2),
    data=st.data(),
)
def test_loader_and_schema_agree_on_values(place: Place, value: Any, data: st.DataObject) -> None:
    """For any setting and any value, both accept or both refuse; NaN apart, which JSON does not have."""
    setting = data.draw(
        st.sampled_from(sorted(settings_at(place).values(), key=lambda setting: setting.name))
    )
    document = {setting.name: value}
    if place is Place.MODEL:
        document = {"models": {"a": document}}
    try:
        setting.kind.from_toml(value)
        accepted = True
    except ValueError:
        accepted = False
    if not accepted and isinstance(value, str) and _beyond(value):
        return
    assert VALIDATOR.is_valid(document) is accepted


def _beyond(text: str) -> bool:
    """A duration of over 30 days or a size of over 10^15 bytes: a pattern cannot count so far."""
    return text.strip().lower().endswith(("h", "m", "tb", "tib"))
