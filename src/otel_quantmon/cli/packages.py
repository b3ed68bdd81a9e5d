"""Packages that a command needs beside the library."""

from __future__ import annotations

from importlib.util import find_spec

from otel_quantmon.errors import CommandError

__all__ = ["need", "need_numpy"]


_RUNTIMES = "pip install 'otel-quantmon[onnxruntime]', or for TFLite 'otel-quantmon[litert]'"


def need_numpy(what: str) -> None:
    """See that numpy is installed, which every runtime brings.

    Raises:
        CommandError: It is missing; says which runtimes bring it to ``what``.
    """
    if not _is_installed("numpy"):
        raise CommandError(f"{what} needs numpy, which comes with a runtime: {_RUNTIMES}")


def need(what: str, extra: str, *modules: str) -> None:
    """See that ``modules`` are installed.

    Raises:
        CommandError: One is missing; says which extra brings it to ``what``.
    """
    for module in modules:
        if not _is_installed(module):
            raise CommandError(f"{what} needs the package of {module}: pip install 'otel-quantmon[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
