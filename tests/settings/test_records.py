"""`Settings` and what it says of one model."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from otel_quantmon.settings import Settings


def test_the_exact_name_wins_then_the_later_glob() -> None:
    """Each setting of a model is taken from the most specific section that has it, not from one section."""
    settings = Settings(
        warmup=0,
        models={
            "ocr-large": {"warmup": 1},
            "*": {"warmup": 2, "window_size": 2, "timeout": 2.0},
            "ocr-*": {"warmup": 3, "window_size": 3},
        },
    )
    large = settings.for_model("ocr-large")
    assert (large.warmup, large.window_size, large.timeout) == (1, 3, 2.0)
    assert settings.for_model("ocr-small").warmup == 3
    assert settings.for_model("other").warmup == 2


def test_names_are_matched_with_their_case_and_their_brackets() -> None:
    """A name that is itself a pattern is found by itself; case is never folded."""
    settings = Settings(models={"net[1]": {"warmup": 1}, "Net*": {"warmup": 2}})
    assert [settings.for_model(name).warmup for name in ("net[1]", "net1", "net2", "Net2")] == [1, 1, 10, 2]


def test_references_are_matched_as_sections_are() -> None:
    """`reference` of the process is a mapping from names and globs; a section's own wins over it."""
    settings = Settings(
        reference={"a": "exact", "*": "any", "b*": "glob"}, models={"bx": {"reference": "section"}}
    )
    found = [settings.for_model(name).reference for name in ("a", "z", "by", "bx")]
    assert found == ["exact", "any", "glob", "section"]
    assert Settings().for_model("a").reference is None


def test_a_model_is_looked_up_once_and_never_without_bound() -> None:
    """The same record comes back each time; a process that makes up names keeps a bounded few of them."""
    settings = Settings(models={"a": {"name": "b", "version": "1"}})
    assert settings.for_model("a") is settings.for_model("a")
    assert (settings.for_model("a").name, settings.for_model("a").version) == ("b", "1")
    for number in range(5000):
        settings.for_model(f"made-up-{number}")
    assert len(settings._for_model) <= 1024


@pytest.mark.parametrize(
    "values",
    [
        {"span_budget": 2},
        {"timeout": "200ms"},
        {"timeout": 0},
        {"spans": "ALL"},
        {"warmup": None},
        {"reference": {"a": 1}},
        {"models": {"a": {"timeout": -1}}},
        {"models": {"a": {"queue_size": 1}}},
        {"models": {"a": {"timeot": 1}}},
    ],
)
def test_a_wrong_python_value_is_refused(values: dict[str, object]) -> None:
    """What a program writes is checked by the same table, as an error where it is written."""
    with pytest.raises(ValueError, match=r"is not accepted; give|no setting"):
        Settings(**values)  # type: ignore[arg-type]  # wrong on purpose


def test_settings_cannot_be_changed_but_copied() -> None:
    """They are read by several threads; a spawned process gets them by pickle."""
    settings = Settings(timeout=0.2, models={"a": {"timeout": None}})
    settings.for_model("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.timeout = 1.0  # type: ignore[misc]  # wrong on purpose
    assert not hasattr(settings, "__dict__")
    assert pickle.loads(pickle.dumps(settings)) == settings == copy.deepcopy(settings)
    assert dataclasses.replace(settings, timeout=1.0).for_model("b").timeout == 1.0
