"""What models that share a series have in common: the content that was learnt of."""

from __future__ import annotations

from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.identity import Model
from otel_quantmon.recording.series import Series
from otel_quantmon.settings import Settings


def model(digest: str | None) -> Model:
    """Return a model of the same name, whatever its content is."""
    loaded = LoadedModel(
        runtime="onnxruntime", runtime_version="1", provider="CPUExecutionProvider", label="m"
    )
    made = Model(loaded, Settings())
    made.content.digest = digest
    return made


def series_of(first: Model) -> Series:
    return Series(
        (first.name, "onnxruntime", "none", "CPUExecutionProvider"), first, Monitor(1.0).streams("m")
    )


def test_a_model_that_is_loaded_again_goes_on_with_the_series() -> None:
    """The new one is loaded before the old one goes, and what is learnt is still kept under its digest."""
    old = model("sha256:1")
    series = series_of(old)
    again = model("sha256:1")
    series.add(again)
    assert series.digest == "sha256:1"
    del old
    assert series.digest == "sha256:1"
    del again
    assert series.digest is None


def test_what_was_learnt_of_one_content_is_not_kept_as_that_of_another() -> None:
    """Of a file that was replaced by another while both are loaded: its baseline would be the other one's."""
    old = model(None)
    series = series_of(old)
    assert series.digest is None
    old.content.digest = "sha256:1"
    assert series.digest == "sha256:1"
    other = model("sha256:2")
    series.add(other)
    assert series.digest == "sha256:1"
    del old
    assert series.digest is None


def test_models_that_come_and_go_leave_nothing() -> None:
    """A model that is loaded a thousand times is not known a thousand times."""
    first = model("sha256:1")
    series = series_of(first)
    for _ in range(1000):
        series.add(again := model("sha256:1"))
        del again
    assert len(series._models) == 2
    assert series.digest == "sha256:1"
