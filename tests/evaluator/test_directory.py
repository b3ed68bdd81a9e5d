"""A directory of samples as a source: in which order they come, and what moves them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_quantmon.evaluator import dead_letters
from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.fidelity.remote.record import SampleRecord

from .conftest import LEASE, files

Made = Callable[..., SampleRecord]
Put = Callable[..., None]

SECOND = 10**9


@pytest.fixture
def written(made: Made, put: Put, directory: Path) -> list[str]:
    """Identities of twelve samples in the order of their writing, which is neither that of names nor of the folder."""
    records = [made(time=(number + 1) * SECOND) for number in range(12)]
    put(*records)
    for record in records:
        os.utime(directory / "new" / f"{record.id}.sample", ns=(0, record.time))
    return [record.id for record in records]


def names(source: DirectorySource, most: int = 100) -> list[str]:
    """What a claim gives."""
    return [one.name for one in source.claim(most, 0.0)]


def test_samples_come_in_the_order_of_their_writing(written: list[str], directory: Path) -> None:
    """Also in several claims, and for two workers that share them."""
    source, other = DirectorySource(str(directory), LEASE), DirectorySource(str(directory), LEASE)
    assert names(source, 3) == written[:3]
    assert names(other, 3) == written[3:6]
    assert names(source, 4) == written[6:10]
    assert names(other) == written[10:]
    assert names(source) == []


def test_the_folder_is_read_again_when_what_was_found_is_used_up(
    written: list[str], made: Made, put: Put, directory: Path
) -> None:
    """With many that wait it takes long: what comes meanwhile comes after them."""
    source, late = DirectorySource(str(directory), LEASE), made()
    assert names(source, 3) == written[:3]
    put(late)
    os.utime(directory / "new" / f"{late.id}.sample", (0, 0))
    assert names(source) == written[3:]
    assert names(source) == [late.id]


def test_what_is_released_has_its_place_again(written: list[str], directory: Path) -> None:
    """A claim has changed the time of its file: what is given back is not behind what was written after it."""
    source = DirectorySource(str(directory), LEASE)
    for one in source.claim(5, 0.0):
        source.settle(one, "release")
    assert names(DirectorySource(str(directory), LEASE)) == written


def test_what_a_killed_worker_had_has_its_place_again(written: list[str], put: Put, directory: Path) -> None:
    """By the time of its call, where it is a sample; the time of the claim is all that its file has."""
    put(noise=b"noise")
    os.utime(directory / "new" / "noise.sample", (0, 0))
    assert names(DirectorySource(str(directory), LEASE), 6) == ["noise", *written[:5]]
    for path in (directory / "claimed").iterdir():
        os.utime(path, (10**6, 10**6))
    assert names(DirectorySource(str(directory), LEASE)) == [*written, "noise"]


def rejected(put: Put, directory: Path, source: DirectorySource, name: str, data: bytes) -> None:
    """Have a sample rejected."""
    put(**{name: data})
    (one,) = source.claim(1, 0.0)
    source.settle(one, "reject", f"why {name}")


@pytest.mark.parametrize(("limit", "value"), [("_MOST", 10), ("_MOST_BYTES", 10 * 130)])
def test_of_what_is_rejected_the_newest_is_kept(
    limit: str,
    value: int,
    put: Put,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By number and by size, each with its reason, also what another worker has put there; it is said once."""
    monkeypatch.setattr(dead_letters, limit, value)
    other = DirectorySource(str(directory), LEASE)
    for number in range(8):
        rejected(put, directory, other, f"a{number}", bytes(120))
    source = DirectorySource(str(directory), LEASE)
    for number in range(8):
        rejected(put, directory, source, f"b{number}", bytes(120))
    left = files(directory, "rejected")
    stems = sorted({name.partition(".")[0] for name in left})
    assert left == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".sample", ".txt"))
    assert 8 < len(stems) <= 10
    assert stems == [f"a{number}" for number in range(8)][8 - (len(stems) - 8) :] + [
        f"b{n}" for n in range(8)
    ]
    assert caplog.text.count("the oldest of them are dropped") == 1


def test_a_single_large_one_is_kept(put: Put, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large it is: it is what somebody will want to look at."""
    monkeypatch.setattr(dead_letters, "_MOST_BYTES", 10)
    source = DirectorySource(str(directory), LEASE)
    for name in ("a", "b"):
        rejected(put, directory, source, name, bytes(120))
    assert files(directory, "rejected") == ["b.sample", "b.txt"]
