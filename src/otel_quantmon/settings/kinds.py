"""The kinds of value a setting can have: how each is written, read and described.

A kind reads two notations: the text of an environment variable, and the value a TOML parser gives. The
second is the stricter one (`true`, not `"yes"`), so that `schema.json` can say exactly what a file may hold.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

__all__ = [
    "BOOLEAN",
    "DURATION",
    "FOLDER",
    "FOLDER_OR_URL",
    "LABEL",
    "LABELS",
    "NAMES",
    "OPTIONAL_DURATION",
    "PATH",
    "RATIO",
    "REFERENCE",
    "REFERENCES",
    "REMOTE",
    "SIZE",
    "Kind",
    "choice",
    "choices",
    "integer",
    "positive",
]

# What one thread wait may last on every platform: Windows ends at 2**32 ms, 49 days.
LONGEST_DURATION = 30 * 24 * 3600.0
_LARGEST_SIZE = 10**15  # exact as a float, so as a JSON number everywhere

# Exponents are kept as text, so that "50us" becomes the float nearest to 5e-05 and not 50 * 1e-06.
_SECONDS = {
    "": ("", 1),
    "us": ("e-6", 1),
    "µs": ("e-6", 1),  # U+00B5, the micro sign
    "μs": ("e-6", 1),  # U+03BC, the Greek letter
    "ms": ("e-3", 1),
    "s": ("", 1),
    "m": ("", 60),
    "h": ("", 3600),
}
_BYTES = {"b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}

# Also the patterns of the JSON schema, so they keep to what Python's and ECMA's regular expressions share.
# The lookahead refuses zero; the bounded digits keep every number finite.
_DURATION_PATTERN = r"\s*(?=[0-9.]*[1-9])([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(us|\u00b5s|\u03bcs|ms|s|m|h|)\s*"
_SIZE_PATTERN = (
    r"\s*(?=[0-9.]*[1-9])(?:([0-9]{1,15})\s*[bB]?|([0-9]{1,9})(?:\.([0-9]{1,9}))?\s*([kKmMgGtT][iI]?[bB]))\s*"
)

REMOTE = "remote"
"""In place of the path of a reference: it is run elsewhere. A file of that name is written ``./remote``."""

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    Attributes:
        accepts: Text that says what to write, as the end of "give ...".
        from_text: A function that reads an environment variable's text, stripped and not empty; it raises ValueError.
        from_toml: A function that reads a TOML (or Python) value; it raises ValueError.
        schema: The JSON schema of what ``from_toml`` reads.
        located: A function that gives what the value becomes when it stands in a file of the given directory.
    """

    accepts: str
    from_text: Callable[[str], Any]
    from_toml: Callable[[object], Any]
    schema: Mapping[str, Any]
    located: Callable[[Any, str], Any] = lambda value, _directory: value


def _boolean_text(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _number(value: object, minimum: float, maximum: float) -> int | float:
    # bool is an int to Python. NaN fails the comparison, and so does an int too large for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum <= value <= maximum:
        raise ValueError(value)
    return value


def _ratio(value: object) -> float:
    return float(_number(value, 0, 1))


def _duration(value: object) -> float:
    """Seconds, above 0 and at most ``LONGEST_DURATION``."""
    if isinstance(value, str):
        match = re.fullmatch(_DURATION_PATTERN, value)
        if match is None:
            raise ValueError(value)
        exponent, factor = _SECONDS[match[2]]
        value = float(match[1] + exponent) * factor
    seconds = float(_number(value, 0, LONGEST_DURATION))
    if seconds == 0:
        raise ValueError(value)
    return seconds


def _optional_duration(value: object) -> float | None:
    return None if value == "none" else _duration(value)


def _size(value: object) -> int:
    """Bytes, at least 1; a fraction of a byte counts as one."""
    if isinstance(value, str):
        match = re.fullmatch(_SIZE_PATTERN, value)
        if match is None:
            raise ValueError(value)
        if match[1]:
            value = int(match[1])
        else:
            fraction = match[3] or ""
            scaled = int(match[2] + fraction) * _BYTES[match[4].lower()]
            value = -(-scaled // 10 ** len(fraction))
    return _integer(value, 1, _LARGEST_SIZE)


def _integer(value: object, minimum: int, maximum: int) -> int:
    number = _number(value, minimum, maximum)
    # 10.0 is an integer to JSON schema.
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _label(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or any(character < " " for character in value):
        raise ValueError(value)
    return value


def _labels(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(value)
    items = cast("Mapping[object, object]", value).items()
    return {_label(name): _label(target) for name, target in items}


def _labels_text(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, equals, target = (part.strip() for part in item.partition("="))
        if not equals or name in labels:
            raise ValueError(text)
        labels[name] = target
    return _labels(labels)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(value)
    return tuple(_label(name) for name in cast("Sequence[object]", value))


def _names_text(text: str) -> tuple[str, ...]:
    return _names([name.strip() for name in text.split(",")])


def _reference_at(path: str, directory: str) -> str:
    return REMOTE if path == REMOTE else os.path.join(directory, path)


def _folder_at(place: str, directory: str) -> str:
    # As fsspec tells them apart.
    return place if "://" in place else os.path.join(directory, place)


def _references(value: object) -> dict[str, str]:
    return {"*": REMOTE} if value == REMOTE else _labels(value)


def _references_text(text: str) -> dict[str, str]:
    return {"*": REMOTE} if text == REMOTE else _labels_text(text)


def _references_at(paths: Mapping[str, str], directory: str) -> dict[str, str]:
    return {name: _reference_at(path, directory) for name, path in paths.items()}


_DURATION_SCHEMAS: list[Mapping[str, Any]] = [
    {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_DURATION},
    {"type": "string", "pattern": f"^(?:{_DURATION_PATTERN})$"},
]
_DURATION_ACCEPTS = (
    'a duration such as "200ms", "1.5s", "2m", "1h" or a number of seconds, above 0 and up to 30 days'
)
_LABEL_SCHEMA: Mapping[str, Any] = {
    "type": "string",
    "pattern": r"\S",
    "not": {"pattern": r"[\u0000-\u001f]"},
}
_LABELS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "propertyNames": _LABEL_SCHEMA,
    "additionalProperties": _LABEL_SCHEMA,
}

BOOLEAN = Kind(
    f"one of {', '.join(_TRUE + _FALSE)} (in a file: true or false)",
    _boolean_text,
    _boolean,
    {"type": "boolean"},
)
RATIO = Kind(
    "a ratio from 0 to 1",
    lambda text: _ratio(float(text)),
    _ratio,
    {"type": "number", "minimum": 0, "maximum": 1},
)
DURATION = Kind(_DURATION_ACCEPTS, _duration, _duration, {"anyOf": _DURATION_SCHEMAS})
OPTIONAL_DURATION = Kind(
    _DURATION_ACCEPTS + ', or "none"',
    lambda text: None if text.lower() == "none" else _duration(text),
    _optional_duration,
    {"anyOf": [*_DURATION_SCHEMAS, {"const": "none"}]},
)
SIZE = Kind(
    'a size such as "64MiB", "1GB" or a number of bytes, above 0',
    _size,
    _size,
    {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": _LARGEST_SIZE},
            {"type": "string", "pattern": f"^(?:{_SIZE_PATTERN})$"},
        ]
    },
)
LABEL = Kind("a text that is not blank and holds no control character", _label, _label, _LABEL_SCHEMA)
LABELS = Kind("a table of names, name = name", _labels_text, _labels, _LABELS_SCHEMA)
PATH = Kind(
    "the path of a file", _label, _label, _LABEL_SCHEMA, lambda path, directory: os.path.join(directory, path)
)
FOLDER = replace(PATH, accepts="the path of a folder")
FOLDER_OR_URL = Kind(
    'the path of a folder, or a URL such as "s3://bucket/folder"', _label, _label, _LABEL_SCHEMA, _folder_at
)
NAMES = Kind(
    "a list of names, with commas (in a file: an array)",
    _names_text,
    _names,
    {"type": "array", "items": _LABEL_SCHEMA},
)
REFERENCE = Kind('the path of a file, or "remote"', _label, _label, _LABEL_SCHEMA, _reference_at)
REFERENCES = Kind(
    'paths by model, as "name=path,other=path" (in a file: a table, name = "path"), or "remote" for all or in '
    "place of a path",
    _references_text,
    _references,
    {"anyOf": [_LABELS_SCHEMA, {"const": REMOTE}]},
    _references_at,
)


def integer(minimum: int, maximum: int) -> Kind:
    """Return a whole number from ``minimum`` to ``maximum``, both included."""
    return Kind(
        f"a whole number from {minimum} to {maximum}",
        lambda text: _integer(int(text), minimum, maximum),
        lambda value: _integer(value, minimum, maximum),
        {"type": "integer", "minimum": minimum, "maximum": maximum},
    )


def choice(*options: str) -> Kind:
    """One of the given lower-case words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in options:
            raise ValueError(value)
        return value

    return Kind(
        f"one of {', '.join(options)}", lambda text: read(text.lower()), read, {"enum": list(options)}
    )


def choices(*options: str) -> Kind:
    """Some of the given lower-case words, each once."""

    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(value)
        words = cast("Sequence[object]", value)
        found = tuple(word for word in words if isinstance(word, str) and word in options)
        if len(found) != len(words) or len(set(found)) != len(found):
            raise ValueError(words)
        return found

    return Kind(
        f"a list of {', '.join(options)}, with commas (in a file: an array)",
        lambda text: read(tuple(word.strip().lower() for word in text.split(","))),
        read,
        {"type": "array", "items": {"enum": list(options)}, "uniqueItems": True},
    )


def positive(maximum: float) -> Kind:
    """A number above 0, up to ``maximum``."""

    def read(value: object) -> float:
        number = float(_number(value, 0, maximum))
        if number == 0:
            raise ValueError(value)
        return number

    return Kind(
        f"a number above 0 and up to {maximum:g}",
        lambda text: read(float(text)),
        read,
        {"type": "number", "exclusiveMinimum": 0, "maximum": maximum},
    )
