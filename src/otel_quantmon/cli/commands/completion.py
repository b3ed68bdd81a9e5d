"""``quantmon completion``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from otel_quantmon.cli.commands.protocol import COULD_NOT

__all__ = ["CompletionCommand"]


class CompletionCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "write what completes commands and options in a shell"
    description = (
        "Write a script that has a shell complete commands, options and files to the standard output."
    )
    examples = (
        "quantmon completion bash > ~/.local/share/bash-completion/completions/quantmon",
        "quantmon completion zsh > ~/.zfunc/_quantmon",
        "quantmon completion fish > ~/.config/fish/completions/quantmon.fish",
    )
    statuses = ((0, "it is written"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        from otel_quantmon.cli.completion import write_completion

        return write_completion(arguments.root, arguments.shell)
