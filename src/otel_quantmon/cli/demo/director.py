"""Makes the models of the demo, runs its application under ``quantmon run``, and says what to try next."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from otel_quantmon.cli.demo.magika import FLOAT, SERVED
from otel_quantmon.cli.packages import need
from otel_quantmon.cli.run import run_command
from otel_quantmon.errors import CommandError

__all__ = ["demo_command"]

# A name that the next version of the file has, too; and budgets of somebody with a core to spare, since baselines of
# what is sampled are to be learnt in half a minute.
_SETTINGS = f"""\
reference_budget = 1.0
check_budget = 1.0

[models."*/{SERVED}"]
name = "magika"
reference = "{FLOAT}"
"""
"""Of the application; the path of the reference is relative to the file."""

_NEXT = """
What next?
  {report}
      the page of this run: open it in a browser
  quantmon show {database} --page
      the same page from the kept run, with everything of each inference
  quantmon inspect {model}
      what is known of the int8 model
  quantmon run -- python app.py
      your own application, unchanged
"""


def demo_command(arguments: Namespace) -> int:
    """Run the demo; see ``quantmon demo --help``.

    Returns:
        0 if all three faults were caught, 1 if not, 130 if somebody stopped it.

    Raises:
        CommandError: A package is missing, or the model cannot be made.
    """
    need("quantmon demo", "demo", "magika", "onnx", "onnxruntime")
    folder = Path(tempfile.mkdtemp(prefix="quantmon-demo-")) if arguments.folder is None else arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    report, database, config = folder / "report.html", folder / "run.db", folder / "quantmon.toml"
    if database.exists():
        raise CommandError(f"{folder} has a demo already: give another folder")
    config.write_text(_SETTINGS, encoding="utf-8")
    # The demo is for this desk alone, whatever is set for applications here.
    for name in [name for name in os.environ if name.startswith(("OTEL_", "QUANTMON_"))]:
        del os.environ[name]
    sys.stderr.write("quantmon: quantizing the file-type classifier magika to int8 ...\n")
    # In a process of its own: its threads and its memory are no part of what follows.
    made = subprocess.run(  # noqa: S603  our own module
        [sys.executable, "-m", "otel_quantmon.cli.demo.magika", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if made.returncode:
        raise CommandError(f"the model cannot be quantized:\n{made.stderr.strip()}")
    status = run_command(
        Namespace(
            line=[sys.executable, "-m", "otel_quantmon.cli.demo.application", str(folder)],
            view=arguments.view,
            summary=True,
            db=database,
            json=None,
            page=arguments.page,
            report=report,
            reference=None,
            timeout=None,
            baseline=None,
            config=str(config),
        )
    )
    # The commands are for copying.
    database, model = (shlex.quote(str(path)) for path in (database, folder / SERVED))
    sys.stdout.write(_NEXT.format(report=report, database=database, model=model))
    return status
