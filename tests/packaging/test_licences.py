"""Everything installed beside these tests is under an open-source licence that is not the AGPL."""

from __future__ import annotations

import importlib.metadata

import pytest
from licences import OPEN, of_text, of_words

OF_ANOTHER = {"ddtrace-internal": "part of ddtrace's wheel, under its licence"}
"""Distributions without any word on their licence, and why that is no question."""


def licences(distribution: importlib.metadata.Distribution) -> set[str]:
    """By the metadata's expression or classifiers, else by the licence's text."""
    metadata = distribution.metadata
    if expression := metadata.get("License-Expression"):
        return of_words(expression)
    classifiers = [line.split(" :: ") for line in metadata.get_all("Classifier") or []]
    if named := [line[-1] for line in classifiers if line[0] == "License" and len(line) > 2]:
        return {licence for words in named for licence in of_words(words)}
    files = [
        file for file in distribution.files or [] if "licen" in file.name.lower() and file.suffix != ".py"
    ]
    texts = [found for file in files if (found := of_text(file.locate().read_text(errors="replace")))]
    return set().union(*texts) if texts else of_words(metadata.get("License") or "")


def test_every_installed_distribution_may_be_used() -> None:
    """`nox -s licences` runs this with all extras and all dependency groups installed."""
    installed = {
        distribution.metadata["Name"]: licences(distribution)
        for distribution in importlib.metadata.distributions()
    }
    others = {name: found for name, found in installed.items() if not found or not found <= OPEN}
    assert others.keys() <= OF_ANOTHER.keys(), others


COMMONS_CLAUSE = 'Apache License\nVersion 2.0, January 2004\n"Commons Clause" License Condition v1.0'
MPL = """Mozilla Public License, version 2.0
"Secondary License" means either the GNU General Public License, Version 2.0, or the GNU Affero General Public License,
Version 3.0"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GNU AFFERO GENERAL PUBLIC LICENSE\n   Version 3, 19 November 2007", {"AGPL-3.0"}),
        ("Server Side Public License\nVERSION 1, OCTOBER 16, 2018", {"SSPL-1.0"}),
        ("Business Source License 1.1", {"BUSL-1.1"}),
        (COMMONS_CLAUSE, {"Apache-2.0", "Commons-Clause"}),
        (MPL, {"MPL-2.0"}),
    ],
)
def test_a_licence_is_known_by_its_text(text: str, found: set[str]) -> None:
    """A forbidden licence is found beside another; the MPL's mention of others is not taken for them."""
    assert of_text(text) == found


@pytest.mark.parametrize("words", ["AGPL-3.0-only", "MIT AND AGPL-3.0-or-later", "Other/Proprietary License"])
def test_a_forbidden_licence_is_known_by_its_name(words: str) -> None:
    """In an expression or a classifier, alone or beside one that may be used."""
    assert not of_words(words) <= OPEN
