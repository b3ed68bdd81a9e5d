"""`docs/configuration.md` is executed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from otel_quantmon.settings import Settings
from otel_quantmon.settings.table import PREFIX, Place, settings_at
from otel_quantmon.settings.tomlfile import read_toml

from .rendering import DOCUMENT
from .test_schema import VALIDATOR

TEXT = DOCUMENT.read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("toml", _blocks("toml"))
def test_toml_examples_load(
    toml: str, load: Callable[..., Settings], warnings: Callable[[], list[str]]
) -> None:
    """Each file shown is free of warnings, valid by the schema, and sets something."""
    found = load(toml)
    assert warnings() == []
    assert found.config is not None
    VALIDATOR.validate(read_toml(found.config))
    assert found != Settings(config=found.config)


def test_the_first_example_does_what_the_text_says(load: Callable[..., Settings]) -> None:
    """The page's example of precedence holds: `ocr-large` has no timeout even if the environment sets one."""
    found = load(_blocks("toml")[0], QUANTMON_TIMEOUT="200ms")
    assert found.for_model("ocr-large").timeout is None
    assert found.for_model("ocr-large").window_size == 200
    assert found.for_model("ocr-small").timeout == 1.5
    assert found.for_model("other").timeout == 0.2


def test_variables_and_flags_of_the_page_exist() -> None:
    """No example names a variable or flag that there is not."""
    shown = {name.lower() for name in re.findall(rf"\b{PREFIX}([A-Z_]*[A-Z])\b", TEXT)}
    shown |= set(re.findall(r"--quantmon_([a-z_]*[a-z])\b", TEXT))
    assert {"timeout", "config"} <= shown <= settings_at(Place.ENVIRONMENT).keys()


def test_shown_warnings_are_the_real_ones(
    load: Callable[..., Settings], warnings: Callable[[], list[str]]
) -> None:
    """The warnings on the page are those that such mistakes give, up to where the page breaks off."""
    load('tiemout = 1\n[models."ocr-*"]\ntimeout = -1', QUANTMON_WARMUP="many")
    said = [re.sub(r"^\S*quantmon\.toml", "quantmon.toml", message) for message in warnings()]
    for line in _blocks("text")[0].splitlines():
        assert any(message.startswith(line.removesuffix("...").rstrip()) for message in said), line


@pytest.mark.parametrize("program", _blocks("python"))
def test_python_examples_run(program: str) -> None:
    """Each program shown runs; what it asserts holds."""
    exec(compile(program, str(DOCUMENT), "exec"), {})
