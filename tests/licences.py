"""What a licence is, by its text or by what a package's metadata call it; and which ones are open source.

For the tests that nothing is fetched, built or run here that is under the AGPL or a licence that is not open source.
"""

from __future__ import annotations

import re
from typing import Final

OPEN: Final = {
    *(
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "EPL-2.0",
        "GPL-2.0",
        "GPL-3.0",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
    ),
    *("MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib", "ZPL-2.1"),
}
"""SPDX names of what may be used here. The AGPL is left out on purpose, though it is open source; PyInstaller is under
the GPL, and only run by a test; so is a file of docutils for an editor, which builds the documentation."""

_TEXTS: Final = (
    ("AGPL-3.0", r"gnu affero general public license version"),
    ("SSPL-1.0", r"server side public license"),
    ("BUSL-1.1", r"business source license"),
    ("Elastic-2.0", r"elastic license"),
    ("Commons-Clause", r"commons clause"),
    ("LGPL", r"gnu lesser general public license version"),
    ("GPL", r"gnu general public license version"),
    ("MPL-2.0", r"mozilla public license,? (version|v\.) ?2\.0"),
    ("Apache-2.0", r"apache license,? version 2\.0|licensed under the apache license"),
    ("CC0-1.0", r"cc0 1\.0 universal"),
    ("MIT", r"permission is hereby granted, free of charge"),
    ("BSD-3-Clause", r"redistribution and use in source and binary forms.*(neither the|names? of)"),
    ("BSD-2-Clause", r"redistribution and use in source and binary forms"),
    ("ISC", r"permission to use, copy, modify,? and(/or)? distribute this software for any"),
    ("Unlicense", r"released into the public domain"),
)
"""By a phrase of each that the others' texts do not have; those that may not be used come first, so that one beside
another is seen. (The MPL mentions the AGPL, but not by the head of its text.)"""

_WORDS: Final = {
    "apache": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit license": "MIT",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "gnu general public license v2 (gplv2)": "GPL-2.0",
    "gnu general public license (gpl)": "GPL-3.0",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
"""What metadata call licences, in small letters, where it is not their SPDX name."""


def of_text(text: str) -> set[str]:
    """The licences whose texts are in ``text``: their SPDX names, roughly, where they may not be used here."""
    words = " ".join(re.sub(r"[^\w.,()/-]+", " ", text).split()).lower()
    found = {name for name, phrase in _TEXTS if re.search(phrase, words)}
    return found - {"BSD-2-Clause"} if "BSD-3-Clause" in found else found


def of_words(expression: str) -> set[str]:
    """The licences that a package's metadata name: an SPDX expression, a classifier's last part or some words."""
    if expression.lower() in _WORDS:
        return {_WORDS[expression.lower()]}
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+", expression.strip("() "))
    return {_WORDS.get(part.strip("() ").lower(), part.strip("() ")) for part in parts}
