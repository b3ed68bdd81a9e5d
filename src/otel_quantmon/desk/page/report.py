"""Writes the page of a run as one file: the same page with its data in it, for a browser alone."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from contextlib import closing
from pathlib import Path

from otel_quantmon.desk import queries
from otel_quantmon.desk.page import assets
from otel_quantmon.desk.page.views import listed_traces, model_view, run_view, trace_view
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.errors import DeskError

__all__ = ["write_report"]


def write_report(database: Path, file: Path) -> None:
    """Write the run in ``database`` to ``file`` as HTML that asks for nothing from anywhere.

    It has all models, and the traces of those inferences that their lists name.

    Raises:
        DeskError: ``database`` is no file of a run, plotly is not installed, or ``file`` cannot be written.
    """
    with closing(open_reader(database)) as reader:
        shown = run_view(reader)
        models = {
            str(model.id): found
            for model in queries.models(reader)
            if (found := model_view(reader, model.id))
        }
        traces = {trace: trace_view(reader, trace) for trace in sorted(listed_traces(models.values()))}
    text = _document({"run": shown, "models": models, "traces": traces})
    try:
        _write(file, text)
    except OSError as error:
        raise DeskError(f"{file} cannot be written: {error.strerror}") from error


def _write(file: Path, text: str) -> None:
    if file.exists() and not file.is_file():
        # A device or a pipe is written to: a new file in its place would take it away from everybody.
        with file.open("w", encoding="utf-8") as opened:
            opened.write(text)
        return
    # A link stays one.
    place = Path(os.path.realpath(file))
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        # A report that is there is replaced by a whole one or not at all.
        unfinished.write_text(text, "utf-8")
        unfinished.replace(place)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _document(data: object) -> str:
    charts = assets.charts_script()
    # Compressed it is a third; `load.js` unpacks it in the browser. No time in it: equal runs, equal reports.
    packed = base64.b64encode(gzip.compress(charts.encode(), mtime=0)).decode()
    own = "\n".join(assets.read(name) for name in (*assets.SCRIPTS[:-1], "load.js"))
    # What the page is started with waits for plotly, as a script that `load.js` adds after it.
    start = assets.read(assets.SCRIPTS[-1])
    style = assets.read("style.css")
    icon = base64.b64encode(assets.read("icon.svg").encode()).decode()
    scripts = " ".join(map(_hash, (charts, own, start)))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src-elem 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n<style>{style}</style>'
    )
    tail = (
        f'<script type="application/json" id="data">{assets.embedded(data)}</script>\n'
        f'<script type="text/plain" id="packed">{packed}</script>\n'
        f'<script type="text/plain" id="start">{start}</script>\n'
        f"<script>{own}</script>\n"
    )
    return assets.index(head, tail)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
