"""The files that a browser is given: our own, which are package data, and plotly's JavaScript."""

from __future__ import annotations

import functools
import importlib
import json
from importlib import resources
from typing import Any

from otel_quantmon.errors import DeskError

__all__ = ["SCRIPTS", "charts_script", "embedded", "index", "read"]

SCRIPTS = ("format.js", "dom.js", "charts.js", "views.js", "page.js")
"""In the order in which they are loaded, after plotly's."""


@functools.cache
def read(name: str) -> str:
    """One of our own files."""
    return (resources.files("otel_quantmon.desk.page") / "static" / name).read_text("utf-8")


@functools.cache
def charts_script() -> str:
    """plotly.js, as the package plotly carries it.

    Raises:
        DeskError: Plotly is not installed.
    """
    try:
        # It has no types.
        plotly: Any = importlib.import_module("plotly.offline")
    except ImportError as error:
        raise DeskError('the page needs plotly: pip install "otel-quantmon[page]"') from error
    script: str = plotly.get_plotlyjs()
    return script


def embedded(value: Any) -> str:
    """``value`` as the text of a ``<script type="application/json">``, which nothing in it can end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def index(head: str, tail: str) -> str:
    """The page, with ``head`` at the end of its head and ``tail`` at the end of its body."""
    texts = (
        f'<script type="application/json" id="texts">{embedded(json.loads(read("texts.json")))}</script>\n'
    )
    return read("index.html").replace("<!-- head -->", head).replace("<!-- tail -->", texts + tail)
