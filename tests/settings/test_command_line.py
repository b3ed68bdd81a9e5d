"""Settings as flags of the real `opentelemetry-instrument`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import otel_quantmon
from otel_quantmon.settings.table import Place, settings_at

_COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")
_PROGRAM = "from otel_quantmon.settings import load_settings as l; s = l(); print(s.timeout, s.warmup)"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which a distribution declares the flags, whether or not the package is installed.

    It shadows an installed one by its name, and declares no instrumentor: none is to be started here.
    """
    metadata = tmp_path / "otel_quantmon-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: otel-quantmon\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_environment_variables]\nquantmon = otel_quantmon.environment_variables\n"
    )
    source = next(iter(otel_quantmon.__path__))
    kept = {name: value for name, value in os.environ.items() if "QUANTMON" not in name}
    return kept | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.path.dirname(source)])}


def test_each_setting_is_a_flag(environ: dict[str, str]) -> None:
    """`--help` lists a flag for each setting of the environment, once, and no other of ours."""
    shown = subprocess.run(
        [_COMMAND, "--help"], env=environ, capture_output=True, text=True, check=True
    ).stdout
    flags = re.findall(r"^ +--quantmon_(\w+) ", shown, flags=re.MULTILINE)
    assert sorted(flags) == sorted(settings_at(Place.ENVIRONMENT))


def test_a_flag_reaches_the_application(environ: dict[str, str]) -> None:
    """A flag sets its setting in the process that is started, over the variable; what has no flag stays."""
    variables = {"QUANTMON_TIMEOUT": "1s", "QUANTMON_WARMUP": "3"}
    result = subprocess.run(
        [_COMMAND, "--quantmon_timeout", "200ms", sys.executable, "-c", _PROGRAM],
        env=environ | variables | {"OTEL_SDK_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["0.2", "3"], result.stderr
