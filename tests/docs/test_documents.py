"""What the documentation says is so: its links lead somewhere, its code runs, its two languages agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from otel_quantmon import package, semconv
from otel_quantmon.settings.loading import load_settings
from otel_quantmon.settings.table import TABLE

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        ROOT / "collector-config" / "README.md",
    ]
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


class Block(NamedTuple):
    """A fenced block: its language, its text without indentation, its line, and why it is not run here, if it is not.

    A comment right above a block says so: ``<!-- not run: REASON -->``, or ``<!-- run by FILE -->`` for what another
    test runs.
    """

    language: str
    text: str
    line: int
    elsewhere: str


def blocks(text: str) -> list[Block]:
    found = []
    comment = r"(?:^ *<!-- ((?:not run:|run by) [^>]+) -->\n)?"
    for match in re.finditer(comment + r"^( *)```(\w*)\n(.*?)^\2```$", text, re.MULTILINE | re.DOTALL):
        elsewhere, indent, language, body = match.groups()
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        line = text[: match.start(2)].count("\n") + 1
        found.append(Block(language, "\n".join(lines) + "\n", line, elsewhere or ""))
    return found


def prose(text: str) -> str:
    """The text without its fenced blocks and without code in a line."""
    text = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def links(text: str) -> list[str]:
    # The text of a link may be code, which `prose` empties; the target stays.
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(text))


def headings(text: str) -> list[str]:
    return re.findall(
        r"^#+ .+$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )


def anchors(text: str) -> set[str]:
    """The fragments that a page's headings make, by GitHub's rule."""
    titles = [re.sub(r"^#+ ", "", heading).lower() for heading in headings(text)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_between_files_resolve(document: Path) -> None:
    """A file or a section that a document points to exists: fails when one is renamed and its readers are not."""
    for link in links(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: no such file"
        if fragment:
            assert fragment in anchors(target.read_text()), f"{link}: no such heading"


# The blocks of the Chinese README are those of the English one, as a test below shows: they run once.
RUN = [path for path in DOCUMENTS if path.name != "README.zh-CN.md"]
RUN_NAMES = [str(path.relative_to(ROOT)) for path in RUN]


@pytest.mark.parametrize("document", RUN, ids=RUN_NAMES)
def test_python_in_documents_runs(document: Path, run: Callable[..., str]) -> None:
    """Every Python block of a page runs, one after another in one process: fails when the API moves on."""
    code = [block for block in blocks(document.read_text()) if block.language == "python"]
    for block in code:
        ast.parse(block.text, f"{document.name}:{block.line}")
    here = [block.text for block in code if not block.elsewhere]
    if here:
        run(sys.executable, "-c", "\n".join(here))


# What installs, which `nox -s wheel` and the sessions themselves do, each with extras and groups of its own.
INSTALLS = re.compile(r"^ *pip install .*$", re.MULTILINE)


@pytest.mark.parametrize("document", RUN, ids=RUN_NAMES)
def test_commands_in_documents_run(document: Path, desk: Path, environment: dict[str, str]) -> None:
    """Every shell block of a page runs to its end, in a folder that has what pages name; a block that is not run here
    says why, and one that another test runs is named there.
    """
    # No one answers at the endpoints of the pages, and nobody is to wait for that. Completions go to the home folder.
    given = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "HOME": str(desk)}
    for block in blocks(document.read_text()):
        if block.language not in {"bash", "sh", "console"} or block.elsewhere:
            continue
        text = block.text
        if block.language == "console":
            text = "\n".join(re.findall(r"^\$ (.*)$", text, re.MULTILINE))
        text = INSTALLS.sub("", text)
        # Whether a run was slower than another, and whether an exporter is reachable, is up to the machine.
        text = re.sub(
            r"^(quantmon (?:diff|doctor)\b[^|\n]*)$", r"\1 || test $? = 1", text, flags=re.MULTILINE
        )
        done = subprocess.run(
            ["bash", "-eu", "-c", text],
            cwd=desk,
            env={**environment, **given},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        place = f"{document.name}:{block.line}"
        assert done.returncode == 0, f"{place}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert "otel-quantmon failed in itself" not in done.stderr, f"{place}: {done.stderr[-4000:]}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_what_another_test_runs_is_named_there(document: Path) -> None:
    """The file that is said to run a block exists, and names the page: fails when the test goes and the page stays."""
    for block in blocks(document.read_text()):
        if block.elsewhere.startswith("run by "):
            test = ROOT / block.elsewhere.removeprefix("run by ")
            assert test.exists(), f"{document.name}:{block.line}: no {test}"
            name = document.parent.name if document.stem == "README" else document.stem
            assert name in test.read_text(), f"{test.name} does not name {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_shell_in_documents_is_valid(document: Path, project: dict[str, Any]) -> None:
    """Shell blocks parse, and name flags, extras, files and nox sessions that exist."""
    settings = {setting.name for setting in TABLE}
    noxfile = ROOT / "noxfile.py"
    for language, text, line, _ in blocks(document.read_text()):
        if language not in ("bash", "sh"):
            continue
        place = f"{document.name}:{line}"
        checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, f"{place}: {checked.stderr}"
        assert set(re.findall(r"--quantmon_(\w+)", text)) <= settings, place
        assert {name.lower() for name in re.findall(r"\bQUANTMON_(\w+)=", text)} <= settings, place
        for extra in re.findall(r"(?:otel-quantmon|\.)\[([\w,-]+)\]", text):
            assert set(extra.split(",")) <= set(project["optional-dependencies"]), place
        for file in re.findall(r"\bexamples/\S+\.py\b", text):
            assert (ROOT / file).exists(), f"{place}: {file}"
        if noxfile.exists():
            for session in re.findall(r"\bnox -s (\w+)", text):
                assert re.search(rf"\bdef {session}\(|name=.{session}\b", noxfile.read_text()), (
                    f"{place}: no session {session}"
                )


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_toml_in_documents_is_accepted(
    document: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every TOML block is a settings file that is read without a warning."""
    for number, block in enumerate(blocks(document.read_text())):
        if block.language == "toml":
            file = tmp_path / f"{number}.toml"
            file.write_text(block.text)
            load_settings({"QUANTMON_CONFIG": str(file)})
            assert not caplog.messages, f"{document.name}:{block.line}: {caplog.messages}"


# What is left are outputs and pictures, and what a test of tests/stack gives to the program that it is for.
CHECKED = {"python", "bash", "sh", "console", "toml", "yaml", "promql", "properties", "mermaid", "text"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_block_is_of_a_language_that_is_checked(document: Path) -> None:
    """No block escapes by its language's name, and YAML can be read; tests/stack checks it and PromQL further."""
    for block in blocks(document.read_text()):
        assert block.language in CHECKED, f"{document.name}:{block.line}: {block.language or 'no language'}"
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict), f"{document.name}:{block.line}"


def test_the_readme_is_the_same_in_both_languages() -> None:
    """The Chinese README has the English one's sections, blocks, table rows and links: neither is edited alone."""
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))
    assert [block.text for block in blocks(chinese)] == [block.text for block in blocks(english)]
    levels = [[heading.split(" ")[0] for heading in headings(text)] for text in (english, chinese)]
    assert levels[0] == levels[1]
    shapes = [re.findall(r"^\||^- ", prose(text), re.MULTILINE) for text in (english, chinese)]
    assert shapes[0] == shapes[1], "another number of table rows or list items"
    comments = [re.findall(r"<!-- .*? -->", text) for text in (english, chinese)]
    assert comments[0] == comments[1]
    targets = [sorted(set(links(text)) - {"README.md", "README.zh-CN.md"}) for text in (english, chinese)]
    assert targets[0] == targets[1]
    codes = [set(re.findall(r"`([A-Za-z_.=-]+)`", text)) for text in (english, chinese)]
    # Python's own name for "caused by" is said in the translation only.
    assert codes[0] == codes[1] - {"__cause__"}


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_what_there_is(name: str, project: dict[str, Any]) -> None:
    """Metrics, defaults, oldest versions and Pythons that the README gives are those of the code."""
    text = (ROOT / name).read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    metrics = {value.name for value in vars(semconv).values() if isinstance(value, semconv.Metric)}
    for row in rows:
        named = re.findall(r"`(quantmon\.[\w.]+|\.\w+)`", row[0])
        for metric in named:
            parent = named[0].rpartition(".")[0]
            assert (parent + metric if metric.startswith(".") else metric) in metrics
    defaults = {f"`QUANTMON_{setting.name.upper()}`": setting.default for setting in TABLE}
    variables = [row for row in rows if row[0].startswith("`QUANTMON_")]
    assert variables
    for variable, default, *_ in variables:
        value = defaults[variable]
        assert default.strip("`") == (
            "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        )
    oldest = dict(
        requirement.split(" >= ")
        for requirement in (*package.ONNXRUNTIME_DISTRIBUTIONS, *package.TFLITE_DISTRIBUTIONS)
    )
    stated = [row[1] for row in rows if re.fullmatch(r"\d+\.\d+", row[1])]
    assert stated == [oldest[it] for it in ("onnxruntime", "tensorflow", "ai-edge-litert", "tflite-runtime")]
    assert f"Python {project['requires-python'].removeprefix('>=')}" in text


def test_names_are_in_the_files_that_the_documents_say() -> None:
    """Where a page for contributors says that a name is in a file of the package, it is."""
    package_folder = ROOT / "src" / "otel_quantmon"
    said = [
        (document.name, *match)
        for document in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md")
        for match in re.findall(r"`(\w+)` in\s+`([\w/]+\.py)`", document.read_text("utf-8"))
    ]
    assert len(said) > 4
    assert [one for one in said if one[1] not in (package_folder / one[2]).read_text("utf-8")] == []


def test_every_document_is_reached_from_the_readme() -> None:
    """No page is an orphan: fails when one is added that nobody can find."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        for link in links(page.read_text()):
            if not re.match(r"[a-z]+:", link):
                target = (page.parent / link.partition("#")[0]).resolve()
                waiting += target.glob("*.md") if target.is_dir() else [target]
    assert set(DOCUMENTS) - reached == set()
