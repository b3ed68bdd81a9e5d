"""Reads a TOML file; every way it can fail becomes one ValueError that says where and what."""

from __future__ import annotations

import sys
from typing import Any

from otel_quantmon.guard import pass_on

__all__ = ["read_toml"]

# Far above any real file; a wrong path may name a model, or a device that never ends.
_LARGEST = 1024 * 1024


def read_toml(path: str) -> dict[str, Any]:
    """Return the document of a TOML file.

    Raises:
        ValueError: The file cannot be read, is too large, is not UTF-8 or not TOML; with the line and the
            column where there is one.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        pass_on(error)
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path!r} is not a path: {error}") from error
    if len(content) > _LARGEST:
        raise ValueError(f"{path} is larger than {_LARGEST} bytes and is not read")
    try:
        text = content.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        raise ValueError(f"{path} is not UTF-8 text ({_position(before)})") from error
    try:
        # Only a process that has a file pays for the parser.
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        return tomllib.loads(text)
    except ImportError as error:
        raise ValueError(f"{path} cannot be read: {error}; install tomli") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    except ValueError as error:
        # The parser names a line and a column, but not for a mistake at the very end.
        message = str(error).replace("at end of document", _position(text))
        raise ValueError(f"{path} is not valid TOML: {message}") from error


def _position(before: str) -> str:
    """Where a text of this length ends."""
    lines = before.split("\n")
    return f"at line {len(lines)}, column {len(lines[-1]) + 1}"
