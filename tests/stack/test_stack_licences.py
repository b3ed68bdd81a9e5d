"""Nothing is fetched, built or run for these tests that is under the AGPL or a licence that is not open source."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
from licences import OPEN, of_text, of_words

from stack.programs import PROGRAMS, PROVIDER, TOOLS, binary, kafka_jars

GO_PROGRAMS = sorted({name for name in PROGRAMS if name != "kafka"} | PROVIDER.keys())

DENIED = re.compile(
    r"""
    github\.com/grafana/(?!regexp$|pyroscope-go)  # AGPL: grafana, loki, tempo, mimir, pyroscope; these two are not
    | github\.com/minio/(minio|mc|console|madmin-go|pkg)(/|$)  # AGPL
    | github\.com/hashicorp/(boundary|consul|nomad|packer|terraform|vagrant|vault|waypoint)$  # BUSL; their /api is MPL
    | github\.com/elastic/(beats|elasticsearch|kibana|logstash)(/|$)  # Elastic License, SSPL
    | github\.com/(cockroachdb/cockroach|redpanda-data/redpanda|couchbase/query)(/|$)  # BUSL
    | github\.com/mongodb/mongo$  # SSPL
    """,
    re.VERBOSE,
)
"""Modules whose licence is known to forbid them here, whether a build takes code of them or only names them."""

JARS = {
    "argparse4j": "MIT",
    "hash4j": "Apache-2.0",
    "metrics-core": "Apache-2.0",
    "pcollections": "MIT",
    "re2j": "BSD-3-Clause",
    "slf4j-api": "MIT",
}
"""Of jars that do not carry their licence: by their projects' pages at Maven Central."""


def go(*arguments: str, directory: Path = TOOLS / "builder") -> str:
    return subprocess.run(
        ["go", *arguments], cwd=directory, capture_output=True, text=True, check=True
    ).stdout


@functools.cache
def module_cache() -> Path:
    return Path(go("env", "GOMODCACHE").strip())


def licence_of(module: str, version: str) -> set[str]:
    """By the files at the module's root; a module that is part of another may have its licence there."""
    escaped = re.sub("[A-Z]", lambda letter: "!" + letter[0].lower(), f"{module}@{version}")
    directory = module_cache() / escaped
    if not directory.is_dir():  # a program that was built before has left its modules elsewhere
        directory = Path(json.loads(go("mod", "download", "-json", f"{module}@{version}"))["Dir"])
    files = [file for file in directory.iterdir() if re.match(r"(?i)(un)?licen[cs]e|copying", file.name)]
    return {
        licence for file in files if file.is_file() for licence in of_text(file.read_text(errors="replace"))
    }


def modules_in(program: str) -> set[tuple[str, str]]:
    """The modules, with versions, that the built program has code of: Go writes them into it."""
    found: list[tuple[str, str]] = []
    for line in go("version", "-m", str(binary(program))).splitlines():
        kind, *rest = line.split("\t")[1:4] or [""]
        if kind == "=>":
            found.pop()  # of the module before, which is replaced, there is nothing in it
        if kind in {"mod", "dep", "=>"} and rest[0] and not rest[0].startswith("otel-quantmon.test/"):
            found.append((rest[0], rest[1]))
    return set(found)


@pytest.mark.parametrize("program", GO_PROGRAMS)
def test_every_module_in_a_program_may_be_used(program: str) -> None:
    """Each module that is built into it carries the text of a known licence, and of none that is forbidden."""
    licences = {f"{module} {version}": licence_of(module, version) for module, version in modules_in(program)}
    assert len(licences) > 10
    assert {module: found for module, found in licences.items() if not found or not found <= OPEN} == {}


def locked() -> dict[str, set[str]]:
    """The modules that each directory's ``go.sum`` names, used or not."""
    return {
        file.parent.name: {line.split()[0] for line in file.read_text().splitlines()}
        for file in sorted(TOOLS.glob("*/go.sum"))
    }


def test_no_locked_module_is_denied() -> None:
    """Of the whole graph, beyond what is built, no module is one that may not be had."""
    assert {name: found for name, of in locked().items() if (found := set(filter(DENIED.match, of)))} == {}


@pytest.mark.parametrize(
    ("module", "denied"),
    [
        ("github.com/grafana/tempo", True),
        ("github.com/grafana/regexp", False),
        ("github.com/hashicorp/vault", True),
        ("github.com/hashicorp/consul/api", False),
        ("github.com/minio/minio-go/v7", False),
    ],
)
def test_the_list_knows_programs_from_their_clients(module: str, denied: bool) -> None:
    """A program under such a licence often has a client library under another."""
    assert bool(DENIED.match(module)) is denied


def test_every_jar_of_kafka_may_be_used() -> None:
    """By its manifest, by the licence's text inside it, or as its project states it."""
    others = {}
    for jar in sorted(kafka_jars().glob("*.jar")):
        found = _of_jar(jar) or {JARS.get(re.sub(r"-\d[\w.-]*$", "", jar.stem), "unknown")}
        if not found <= OPEN:
            others[jar.name] = found
    assert others == {}


def _of_jar(jar: Path) -> set[str]:
    with zipfile.ZipFile(jar) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"(META-INF/)?LICENSE[\w.-]*", name)]
        found = {
            licence for name in names for licence in of_text(archive.read(name).decode(errors="replace"))
        }
        manifest = archive.read("META-INF/MANIFEST.MF").decode().replace("\r\n ", "").replace("\n ", "")
    stated = re.search(r"^Bundle-License: *(.+?)\r?$", manifest, re.MULTILINE)
    for address, licence in (("apache", "Apache-2.0"), ("mit-license", "MIT"), ("BSD-2", "BSD-2-Clause")):
        if stated and address in stated[1]:
            found.add(licence)
    return found


def test_the_table_names_the_licence_of_each_program() -> None:
    """`tools/README.md` has a row for each directory, and what it says is what the program's module carries."""
    rows = re.findall(r"^\| (`.+`) \| .+ \| (.+) \| .+ \|$", (TOOLS / "README.md").read_text(), re.MULTILINE)
    stated = {name: licence for names, licence in rows for name in re.findall(r"`(\w+)`", names)}
    assert stated.keys() == {directory.name for directory in TOOLS.iterdir() if directory.is_dir()}
    for name, licence in stated.items():
        assert of_words(licence) <= OPEN, name
        for module, version in _main_modules(name):
            assert licence_of(module, version) == {licence}, module


def _main_modules(directory: str) -> list[tuple[str, str]]:
    """What a directory's ``go.mod`` is there for: the modules of its tools, or those that it requires directly."""
    if directory == "kafka":
        return []
    pinned = json.loads(go("mod", "edit", "-json", directory=TOOLS / directory))
    required = {
        module["Path"]: module
        for module in pinned["Require"]
        if pinned.get("Tool") or not module.get("Indirect")
    }
    wanted = {
        max((path for path in required if tool["Path"].startswith(path)), key=len)
        for tool in pinned.get("Tool") or []
    } or {path for path in required if path.startswith(("github.com/", "go.opentelemetry.io/"))}
    return [(path, required[path]["Version"]) for path in sorted(wanted)]
