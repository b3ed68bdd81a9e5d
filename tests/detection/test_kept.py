"""Baselines between starts: by content, type of host and provider; and what earlier processes knew of a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.kept import Earlier, KeptBaselines
from otel_quantmon.detection.model_streams import ModelStreams
from otel_quantmon.detection.monitor import Monitor

HOST = "x86_64+avx2"


def learnt(name: str = "m") -> ModelStreams:
    """Streams with a baseline of errors."""
    streams = Monitor(1.0).streams(name)
    streams.ended(1000)
    streams.judge(0.0, 0)
    return streams


def fresh(name: str = "m") -> ModelStreams:
    return Monitor(1.0).streams(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_what_one_process_learnt_the_next_one_knows(folder: Path) -> None:
    """Of the same content on the same type of host and provider alone."""
    KeptBaselines(str(folder), HOST).write([(learnt(), "sha256:1", "XNNPACK")], 0.0)
    for digest, host, provider, known in (
        ("sha256:1", HOST, "XNNPACK", True),
        ("sha256:2", HOST, "XNNPACK", False),
        ("sha256:1", "aarch64", "XNNPACK", False),
        ("sha256:1", HOST, "CPU", False),
    ):
        streams = fresh()
        earlier = KeptBaselines(str(folder), host).bring(streams, digest, provider)
        told = not known and host == HOST
        assert earlier == ([Earlier("m", "sha256:1", "XNNPACK", here=True)] if told else [])
        streams.ended(1)
        streams.judge(1.0, 0)
        assert streams.active() == ({"error_rate": False} if known else {})


def test_what_this_process_has_kept_is_no_news_to_it(folder: Path) -> None:
    """A model that is loaded on two providers on purpose: the second is not told of the first."""
    kept = KeptBaselines(str(folder), HOST)
    one = learnt()
    assert kept.bring(one, "sha256:1", "CUDAExecutionProvider") == []
    kept.write([(one, "sha256:1", "CUDAExecutionProvider")], 0.0)
    assert kept.bring(fresh(), "sha256:1", "CPUExecutionProvider") == []


def test_hosts_that_share_a_folder_are_known_by_name(folder: Path) -> None:
    """One that has learnt a baseline, and one that has only been given it; a third has used it on neither."""
    gpu = ("sha256:1", "CUDAExecutionProvider")
    KeptBaselines(str(folder), HOST, "one").write([(learnt(), *gpu)], 0.0)
    assert KeptBaselines(str(folder), HOST, "two").bring(fresh(), *gpu) == []
    for name, here in (("one", True), ("two", True), ("three", False)):
        earlier = KeptBaselines(str(folder), HOST, name).bring(fresh(), "sha256:1", "CPUExecutionProvider")
        assert earlier == [Earlier("m", *gpu, here=here)]


def test_names_of_hosts_do_not_add_up(folder: Path) -> None:
    """Where each container has a name of its own, the last ones are kept."""
    KeptBaselines(str(folder), HOST, "first").write([(learnt(), "sha256:1", "GPU")], 0.0)
    for number in range(100):
        KeptBaselines(str(folder), HOST, str(number)).bring(fresh(), "sha256:1", "GPU")
    (path,) = folder.iterdir()
    assert json.loads(path.read_text("utf-8"))["names"] == [str(number) for number in range(36, 100)]


def test_what_could_not_be_written_is_written_later(folder: Path) -> None:
    """As after a full disk; and it keeps no other model's baseline from being written, nor leaves anything behind."""
    kept = KeptBaselines(str(folder), HOST)
    bad, good = learnt("bad"), learnt("good")
    both = [(bad, "sha256:1", "CPU"), (good, "sha256:2", "CPU")]
    in_the_way = kept._path("sha256:1", "CPU")
    in_the_way.mkdir(parents=True)
    with pytest.raises(OSError, match=in_the_way.name):
        kept.write(both, 0.0)
    assert set(folder.iterdir()) == {in_the_way, kept._path("sha256:2", "CPU")}
    in_the_way.rmdir()
    kept.write(both, 60.0)
    assert json.loads(in_the_way.read_text("utf-8"))["model"] == "bad"


def test_two_containers_do_not_write_the_same_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may be the first process of its own, so the number of the process is the same in both."""
    written: list[str] = []
    replace = Path.replace

    def replacing(self: Path, target: Path) -> Path:
        written.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replacing)
    for name in ("one", "two"):
        KeptBaselines(str(folder), HOST, name).write([(learnt(), "sha256:1", "CPU")], 0.0)
    assert len(set(written)) == 2


@given(
    content=st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
)
def test_a_file_of_anything_is_learnt_anew(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """Cut, edited or of another program: no error, and no baseline."""
    folder = tmp_path_factory.mktemp("kept")
    kept = KeptBaselines(str(folder), HOST)
    kept._path("sha256:1", "CPU").write_text(content, encoding="utf-8", errors="surrogatepass")
    streams = fresh()
    assert kept.bring(streams, "sha256:1", "CPU") == []
    assert streams.active() == {}


def test_what_was_kept_and_not_yet_needed_is_kept_again(folder: Path) -> None:
    """A process that has met one class of shapes writes those of the processes before it as well, with their shares."""
    first = fresh()
    values = [1e-3 + 1e-6 * i for i in range(100)]
    first.begin(
        {"latency_drift": {"1.1": Baseline(values).state(), "1.9": Baseline(values).state()}},
        "learnt",
        {"latency_drift": {"1.1": 0.5, "1.9": 0.25}},
    )
    first.ended(1000)
    first.judge(0.0, 0)
    KeptBaselines(str(folder), HOST).write([(first, "sha256:1", "CPU")], 0.0)
    second, kept = fresh(), KeptBaselines(str(folder), HOST)
    kept.bring(second, "sha256:1", "CPU")
    second.durations("1.1", [10**9], [10**6])
    second.ended(100, timeouts=0)
    second.judge(1.0, 16)
    assert second.newly_learnt()
    second.ended(100, timeouts=0)
    second.begin({"stall": {"": {"events": 0, "trials": 3000}}}, "kept")
    assert second.states()["latency_drift"].keys() == {"1.1", "1.9"}
    assert second.states().keys() == {"latency_drift", "error_rate", "timeout", "stall"}
    assert second.shares()["latency_drift"] == {"1.1": 0.5, "1.9": 0.25}


@pytest.mark.parametrize(
    "shares",
    [
        None,
        [],
        {"error_rate": 3},
        {"error_rate": {"": "much"}},
        {"error_rate": {"": -1}},
        {"error_rate": {"": 10**400}},
    ],
)
def test_shares_of_nonsense_are_left_out(folder: Path, shares: object) -> None:
    """The baseline is watched all the same."""
    kept = KeptBaselines(str(folder), HOST)
    kept.write([(learnt(), "sha256:1", "CPU")], 0.0)
    path = kept._path("sha256:1", "CPU")
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "shares": shares}), encoding="utf-8")
    streams = fresh()
    KeptBaselines(str(folder), HOST).bring(streams, "sha256:1", "CPU")
    streams.ended(1)
    streams.judge(1.0, 0)
    assert streams.active() == {"error_rate": False}
