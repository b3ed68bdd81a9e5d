"""Builds the documentation with Sphinx from the Markdown that GitHub shows: ``sphinx-build -W -c docs . OUTPUT``.

The root of the repository is the source folder, so that a link from a page to any file is right in both places. The
pages have no directives of Sphinx. What GitHub does not need is added here: the navigation, and the reference that is
made from code.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import otel_quantmon
from otel_quantmon.cli.command import make_parser

ROOT = Path(__file__).parents[1]

project = "otel-quantmon"
author = "The otel-quantmon authors"
version = release = otel_quantmon.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
root_doc = "docs/README"
source_suffix = {".md": "markdown"}
include_patterns = [
    "*.md",
    "docs/**.md",
    "examples/README.md",
    "examples/*/README.md",
    "collector-config/README.md",
]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# Single backticks in docstrings are code, as in Markdown.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "otel-quantmon"

NAVIGATION = {
    "Start": ["README", "README.zh-CN", "docs/concepts", "docs/run", "docs/page", "examples/README"],
    "Guides": [
        "docs/guides/fastapi",
        "docs/guides/gunicorn",
        "docs/guides/celery",
        "docs/guides/bentoml",
        "docs/guides/batch",
        "docs/guides/edge",
        "docs/guides/kubernetes",
        "docs/deployment",
    ],
    "Fidelity and detection": ["docs/fidelity", "docs/remote", "docs/fleet", "docs/detection"],
    "Reference": [
        "docs/configuration",
        "docs/telemetry",
        "docs/cli",
        "docs/api",
        "docs/onnxruntime",
        "docs/tflite",
    ],
    "Backends": [
        "collector-config/README",
        "docs/backends/collector",
        "docs/backends/prometheus",
        "docs/backends/jaeger",
        "docs/backends/tempo",
        "docs/backends/grafana",
        "docs/backends/perses",
    ],
    "Operation": ["docs/runbooks", "docs/troubleshooting", "docs/benchmarks"],
    "Project": ["docs/architecture", "CONTRIBUTING", "CHANGELOG"],
}
"""Pages by part. What is missing here stands under "More"."""


def _navigation() -> Iterator[str]:
    listed = {page for pages in NAVIGATION.values() for page in pages} | {root_doc}
    found = (path.relative_to(ROOT).with_suffix("").as_posix() for path in sorted(ROOT.glob("docs/**/*.md")))
    examples = (f"examples/{path.parent.name}/README" for path in sorted(ROOT.glob("examples/*/README.md")))
    more = [page for page in (*examples, *found) if page not in listed]
    for caption, pages in {**NAVIGATION, "More": more}.items():
        yield f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
        yield from (f"/{page}\n" for page in pages)
        yield "```\n\n"


def _commands(of: argparse.ArgumentParser, name: str) -> Iterator[str]:
    """The help of a command and of all below it, as it is written at 80 columns."""
    below = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    written = io.StringIO()
    of.print_help(written)
    yield f"## {name}\n\n```text\n{written.getvalue()}```\n\n"
    for action in below:
        for child, child_parser in action.choices.items():
            yield from _commands(child_parser, f"{name} {child}")


def _api() -> Iterator[str]:
    yield "```{eval-rst}\n"
    for public in otel_quantmon.__all__:
        if public == "__version__":
            continue
        thing = getattr(otel_quantmon, public)
        if isinstance(thing, type):
            kind = "autoexception" if issubclass(thing, Exception) else "autoclass"
            yield f".. {kind}:: otel_quantmon.{public}\n   :members:\n\n"
    for module in ("otel_quantmon.settings", "otel_quantmon.fidelity.baseline"):
        yield f".. automodule:: {module}\n   :members:\n   :imported-members:\n   :noindex:\n\n"
    yield "```\n"


def _add_what_is_made(_: Sphinx, page: str, source: list[str]) -> None:
    """Add the navigation, and the reference that is made from code, to the pages that GitHub shows without them."""
    if page == root_doc:
        source[0] += "\n" + "".join(_navigation())
    elif page == "docs/cli":
        source[0] += "\n" + "".join(_commands(make_parser(), "quantmon"))
    elif page == "docs/api":
        source[0] += "\n" + "".join(_api())


def setup(app: Sphinx) -> dict[str, Any]:
    """Have the pages that are made from code made."""
    app.connect("source-read", _add_what_is_made)
    return {"parallel_read_safe": True}
