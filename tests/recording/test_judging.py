"""Judgement goes on, whatever becomes of one of them, and ends with its provider."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from otel_quantmon.detection.kept import KeptBaselines
from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.process.worker import Worker
from otel_quantmon.recording import judging
from otel_quantmon.recording.judging import Judging

SECONDS = 30.0


class Recorder:
    """Does ``first`` where the first judgement takes what waits, and tells of each later one."""

    def __init__(self, first: Callable[[], object] = lambda: None) -> None:
        self._first: list[Callable[[], object]] = [first]
        self.again = threading.Event()

    def take(self) -> int:
        if self._first:
            self._first.pop()()
        else:
            self.again.set()
        return 0


class Providers:
    """Of which nothing but their end is asked."""

    def __init__(self, *, over: bool) -> None:
        self._over = over

    def shut_down(self) -> bool:
        return self._over


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker that has nothing else to do."""
    own = Worker("test-judging")
    monkeypatch.setattr(judging, "worker", own)
    return own


def judging_of(recorder: Recorder, *, over: bool = False) -> Judging:
    """One that judges every millisecond."""
    providers = cast("Any", Providers(over=over))
    return Judging(cast("Any", recorder), Monitor(1.0), lambda: providers, list, 0.001)


class Told:
    """Judges of one model whether what was kept of others makes its provider a lost one."""

    def __init__(self, folder: Path, host: str, name: str) -> None:
        self._kept = KeptBaselines(str(folder), host, name)

    def facts(self, provider: str) -> list[tuple[str, str]]:
        """Return types and parts of what is told of the model on ``provider``."""
        monitor = Monitor(1.0)
        streams = monitor.streams("m")
        series = SimpleNamespace(streams=streams, key=("m", "onnxruntime", "none", provider))
        earlier = self._kept.bring(streams, "sha256:1", provider)
        judging._compare_with_earlier(cast("Any", series), "sha256:1", earlier, 1.0)
        return [(found.transition.kind, found.transition.judgement.stream) for found in monitor.judge(1.0)]

    def keep(self, provider: str) -> None:
        """Keep a baseline that was learnt on ``provider``."""
        streams = Monitor(1.0).streams("m")
        streams.ended(1000)
        streams.judge(0.0, 0)
        self._kept.write([(streams, "sha256:1", provider)], 0.0)


@pytest.mark.parametrize(
    ("before", "host", "name", "told"),
    [
        ("CUDAExecutionProvider", "x86_64", "here", True),
        ("CUDAExecutionProvider", "x86_64", "another", False),
        ("CUDAExecutionProvider", "aarch64", "here", False),
        ("XNNPACK", "x86_64", "another", True),
        ("XNNPACK", "aarch64", "another", False),
    ],
)
def test_a_host_has_only_lost_what_it_had(
    before: str, host: str, name: str, told: bool, tmp_path: Path
) -> None:
    """Of hosts that share a folder one has a GPU and another none; what runs on a CPU, all hosts of its type have."""
    Told(tmp_path, "x86_64", "here").keep(before)
    facts = Told(tmp_path, host, name).facts("CPUExecutionProvider")
    assert [kind for kind, _ in facts] == ["fallback"] * told


def test_a_full_disk_costs_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is found is told where no baseline can be kept; that is logged once, until it has been possible again."""
    (tmp_path / "file").touch()
    kept = KeptBaselines(str(tmp_path / "file" / "kept"), "x86_64")
    monitor, told = Monitor(1.0), list[Any]()
    streams = monitor.streams("m")
    series = cast(
        "Any", SimpleNamespace(key=("m", "", "", "CPU"), streams=streams, digest="sha256:1", calls=0)
    )
    series.assessment = None
    one = Judging(
        cast("Any", Recorder()),
        monitor,
        lambda: cast("Any", Providers(over=False)),
        lambda: [series],
        60.0,
        kept,
    )
    one._count = lambda _: False  # type: ignore[method-assign]  without calls no memory is read
    one._announce = told.append  # type: ignore[method-assign]
    one._report = lambda found, _: monitor.announce(found)  # type: ignore[method-assign]
    streams.ended(1000)
    streams.fact("model_changed", "", 1.0, 1.0)
    one.run(at_once=True)
    kept._written = None
    one.run(at_once=True)
    assert [news.kind for news in told] == ["model_changed"]
    assert len([record for record in caplog.records if "cannot be kept" in record.message]) == 1


def test_the_last_news_wait_for_nothing(own: Worker) -> None:
    """Of an anomaly whose cause is being looked for when the provider is shut down: no judgement comes after that."""
    monitor, told = Monitor(1.0), list[Any]()
    streams = monitor.streams("m")
    pending = SimpleNamespace(pending=lambda _: True)
    series = cast("Any", SimpleNamespace(key=("m",), streams=streams, inquiry=pending))
    one = Judging(
        cast("Any", Recorder()), monitor, lambda: cast("Any", Providers(over=True)), lambda: [series], 60.0
    )
    one._announce = told.append  # type: ignore[method-assign]
    streams.read("nonfinite", "", 0.0, 1.0)
    streams.fact("nonfinite", "golden y", 1.0, 1.0)
    for found in monitor.judge(1.0):
        monitor.announce(found)
    assert monitor.news(100.0, at_once=True, held=one._held) == []
    one._go_on(False, 100.0, 0.0)
    assert [news.kind for news in told] == ["nonfinite"]


@pytest.mark.usefixtures("own")
def test_a_judgement_that_fails_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a folder of kept baselines cannot be written: without that, nothing would be told any more."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")

    def fail() -> None:
        raise OSError("read-only")

    judging_of(recorder := Recorder(fail)).arm()
    assert recorder.again.wait(SECONDS)


def test_a_judgement_that_had_to_wait_for_the_processor_does_not_put_off_the_next(own: Worker) -> None:
    """What counts against its share of a core is the time it had one, not that in which others did."""
    asked: list[tuple[float, float]] = []
    submit = own.submit

    def submitting(job: Callable[[], object], delay: float = 0.0) -> None:
        asked.append((delay, thread_time()))
        submit(job, delay)

    own.submit = submitting  # type: ignore[method-assign]  to see what it is asked for
    # Waiting for what never comes takes no time of a core.
    never = threading.Event()
    judging_of(recorder := Recorder(lambda: never.wait(0.5))).arm()
    assert recorder.again.wait(SECONDS)
    _, (delay, had) = asked[:2]
    # Fifty times what its thread has ever had of a core. Of the half second it would be 25 s, of which one is counted.
    assert delay <= max(0.001, 50 * had)


@pytest.mark.parametrize("over", [False, True], ids=["provider", "provider shut down"])
def test_without_calls_judgement_ends_with_its_provider(over: bool, own: Worker) -> None:
    """It waits for calls as long as they can be reported; the worker is not to look for ever for those that went."""
    judged = threading.Event()
    one = judging_of(Recorder(judged.set), over=over)
    one.arm()
    assert judged.wait(SECONDS)
    assert own.flush(SECONDS)
    assert bool(one._idle) is over


def test_threads_that_arm_at_once_have_one_judgement_between_them(own: Worker) -> None:
    """Wherever in the midst of it another thread does it as well: two chains of judgements would go on for ever."""
    asked: list[Callable[[], object]] = []
    own.submit = lambda job, delay=0.0: asked.append(job)  # type: ignore[method-assign]  to see what it is asked for
    for stop in range(20):
        one = judging_of(Recorder())
        lines = iter(range(stop))

        def trace(frame: Any, event: str, _: Any, one: Judging = one, lines: Any = lines) -> Any:
            if frame.f_code is Judging.arm.__code__ and event == "line" and next(lines, None) is None:
                sys.settrace(None)
                one.arm()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            one.arm()
        finally:
            sys.settrace(before)
        assert asked.count(one._tick) == 1
