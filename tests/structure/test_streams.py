"""`.ci/streams.py`, by which CI runs the sessions side by side: each of them once, and no failure is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

STREAMS = Path(__file__).parents[2] / ".ci" / "streams.py"
SESSIONS = {
    "lint": [],
    "types": [],
    "docs": [],
    "tests-3.10": ["tests", "shared_out"],
    "tests-3.13": ["tests", "shared_out"],
    "stack": ["builds"],
}

# Says of itself what nox says, and runs a session by printing two lines.
NOX = """#!{python}
import json, os, sys

if "--list" in sys.argv:
    print(json.dumps([{{"session": name, "tags": tags}} for name, tags in {sessions}.items()]))
    sys.exit()
name = sys.argv[-1]
for part in ("first", "last"):
    print(name, part, flush=True)
sys.exit(name == os.environ["FAILS"])
"""


@pytest.mark.skipif(not STREAMS.exists(), reason="outside of a checkout there is no CI")
@pytest.mark.parametrize("fails", ["", *SESSIONS])
def test_each_session_runs_once_and_a_failure_is_the_whole_run_s(fails: str, tmp_path: Path) -> None:
    """Whichever stream it is in; what a session prints stays together."""
    nox = tmp_path / "nox"
    nox.write_text(NOX.format(python=sys.executable, sessions=json.dumps(SESSIONS)))
    nox.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(STREAMS), str(nox)],
        env={"FAILS": fails},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (1 if fails else 0, "")
    assert sorted(re.findall(r"^(\S+) first\n\1 last$", done.stdout, re.MULTILINE)) == sorted(SESSIONS)
    ends = dict(re.findall(r"^  (\S+): (\w+) in \d+ s$", done.stdout, re.MULTILINE))
    assert ends == {name: "failed" if name == fails else "passed" for name in SESSIONS}
