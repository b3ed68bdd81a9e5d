"""What each command takes, and what it calls: a file a command.

Nothing here imports a runtime or a package of an extra: a command's own module is imported when it runs, so that
``--help`` and completion are at hand wherever Python is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from otel_quantmon.cli.commands.baseline import CheckCommand, RecordCommand
from otel_quantmon.cli.commands.certify import CertifyCommand
from otel_quantmon.cli.commands.compare import CompareCommand
from otel_quantmon.cli.commands.completion import CompletionCommand
from otel_quantmon.cli.commands.demo import DemoCommand
from otel_quantmon.cli.commands.diff import DiffCommand
from otel_quantmon.cli.commands.doctor import DoctorCommand
from otel_quantmon.cli.commands.evaluate import EvaluateCommand
from otel_quantmon.cli.commands.inspect import InspectCommand
from otel_quantmon.cli.commands.protocol import Command
from otel_quantmon.cli.commands.run import RunCommand
from otel_quantmon.cli.commands.show import ShowCommand

__all__ = ["COMMANDS", "GROUPS", "Command"]

COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "demo": DemoCommand(),
        "run": RunCommand(),
        "show": ShowCommand(),
        "diff": DiffCommand(),
        "inspect": InspectCommand(),
        "doctor": DoctorCommand(),
        "compare": CompareCommand(),
        "baseline record": RecordCommand(),
        "baseline check": CheckCommand(),
        "certify": CertifyCommand(),
        "evaluate": EvaluateCommand(),
        "completion": CompletionCommand(),
    }
)
"""By their names, in the order of the help; two words for a command within a group."""

GROUPS: Mapping[str, str] = MappingProxyType({"baseline": "record or check a golden baseline"})
"""What the help says of each group."""
