"""How single values are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.settings import kinds
from otel_quantmon.settings.table import TABLE, Setting

_SECONDS = {
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_BYTES = {"": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_BYTES |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}

_labels = st.text(st.characters(exclude_characters=",=", exclude_categories=["C", "Z"]), min_size=1)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.DURATION, "200ms", 0.2),
        (kinds.DURATION, "1.5s", 1.5),
        (kinds.DURATION, "2m", 120.0),
        (kinds.DURATION, "1h", 3600.0),
        (kinds.DURATION, "50us", 5e-05),
        (kinds.DURATION, "50 µs", 5e-05),
        (kinds.DURATION, "50μs", 5e-05),
        (kinds.DURATION, "2", 2.0),
        (kinds.OPTIONAL_DURATION, "None", None),
        (kinds.SIZE, "64MiB", 67_108_864),
        (kinds.SIZE, "1GB", 1_000_000_000),
        (kinds.SIZE, "1.5kb", 1500),
        (kinds.SIZE, "0.0001KiB", 1),
        (kinds.SIZE, "12", 12),
        (kinds.RATIO, "0.05", 0.05),
        (kinds.RATIO, "1e-3", 0.001),
        (kinds.BOOLEAN, "Yes", True),
        (kinds.BOOLEAN, "off", False),
        (kinds.choice("auto", "all"), "ALL", "all"),
        (kinds.integer(0, 10), "10", 10),
        (kinds.REFERENCES, "a=b,c = d=e,", {"a": "b", "c": "d=e"}),
    ],
)
def test_reads_text_as_documented(kind: kinds.Kind, text: str, value: object) -> None:
    """Each notation that the documentation names gives the value it means, to the last bit of the float."""
    assert kind.from_text(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(
            (kinds.DURATION, text)
            for text in ("0", "0ms", "-1s", "nan", "inf", "1e3", "1d", "5 M", "s", "", "721h")
        ),
        *((kinds.SIZE, text) for text in ("0", "0MiB", "-1", "1.5", "1.5B", "1k", "MiB", "999999999TiB")),
        *((kinds.RATIO, text) for text in ("-0.1", "1.01", "nan", "5%", "")),
        *((kinds.BOOLEAN, text) for text in ("2", "y", "enabled")),
        *((kinds.integer(1, 5), text) for text in ("0", "6", "1.5", "ten", "9" * 5000)),
        *((kinds.REFERENCES, text) for text in ("a", "=b", "a=", "a=b,a=c", "a=b,c")),
        (kinds.choice("auto"), "autos"),
    ],
)
def test_refuses_text(kind: kinds.Kind, text: str) -> None:
    """What is out of range, without meaning or ambiguous is a ValueError and not a guess."""
    with pytest.raises(ValueError):
        kind.from_text(text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (kinds.BOOLEAN, 1),
        (kinds.BOOLEAN, "true"),
        (kinds.RATIO, "0.5"),
        (kinds.RATIO, True),
        (kinds.RATIO, math.nan),
        (kinds.DURATION, True),
        (kinds.DURATION, math.inf),
        (kinds.SIZE, 1.5),
        (kinds.integer(0, 10), "5"),
        (kinds.integer(0, 10), 5.5),
        (kinds.LABEL, " "),
        (kinds.LABEL, "a\0b"),
        (kinds.LABELS, {"a": 1}),
        (kinds.LABELS, "a=b"),
    ],
)
def test_refuses_a_value_of_the_wrong_type(kind: kinds.Kind, value: object) -> None:
    """A file has types, so a text is no number there and a number no truth value."""
    with pytest.raises(ValueError):
        kind.from_toml(value)


@given(st.integers(1, 10**12 - 1), st.integers(0, 6), st.sampled_from(sorted(_SECONDS)))
def test_a_duration_is_the_nearest_float(digits: int, places: int, unit: str) -> None:
    """A written duration means its exact decimal value, and what lies beyond 30 days is refused."""
    number = f"{digits // 10**places}.{digits % 10**places:0{places}}" if places else f"{digits}"
    exact = Fraction(digits, 10**places) * _SECONDS[unit]
    if exact > 30 * 24 * 3600:
        with pytest.raises(ValueError):
            kinds.DURATION.from_text(number + unit)
    else:
        assert kinds.DURATION.from_text(number + unit) == pytest.approx(float(exact), rel=2**-52, abs=0)


@given(st.integers(1, 10**12 - 1), st.integers(0, 6), st.sampled_from(sorted(_BYTES)))
def test_a_size_is_exact(digits: int, places: int, unit: str) -> None:
    """A written size means exactly so many bytes, rounded up to a whole one, and up to 10^15 of them."""
    number = f"{digits // 10**places}.{digits % 10**places:0{places}}" if places else f"{digits}"
    exact = Fraction(digits, 10**places) * _BYTES[unit]
    fits_the_notation = not places if _BYTES[unit] == 1 else digits // 10**places < 10**9
    if exact > 10**15 or not fits_the_notation:
        with pytest.raises(ValueError):
            kinds.SIZE.from_text(number + unit)
    else:
        assert kinds.SIZE.from_text(number + unit) == math.ceil(exact)


@given(st.dictionaries(_labels, _labels, min_size=1))
def test_a_mapping_survives_being_written_as_text(mapping: dict[str, str]) -> None:
    """What has neither comma nor equals sign in it comes back as it went in."""
    assert kinds.REFERENCES.from_text(",".join(f"{name}={path}" for name, path in mapping.items())) == mapping


@given(st.sampled_from(TABLE), st.text())
def test_text_gives_a_value_or_a_value_error(setting: Setting, text: str) -> None:
    """No text makes a parser fail in another way, and what it gives is a value that a file could give."""
    _give_or_refuse(setting.kind.from_text, text, setting.kind)


@given(st.sampled_from(TABLE), _values)
def test_a_toml_value_gives_a_value_or_a_value_error(setting: Setting, value: object) -> None:
    """The same for every kind of value a TOML parser can give, and then some."""
    _give_or_refuse(setting.kind.from_toml, value, setting.kind)


def _give_or_refuse(read: Callable[[Any], object], written: object, kind: kinds.Kind) -> None:
    try:
        value = read(written)
    except ValueError:
        return
    assert value is None or kind.from_toml(value) == value
