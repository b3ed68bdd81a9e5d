"""Real data for real models, the same at each run on one machine: files, pictures and sound that packages carry.

Files are those of installed packages; pictures are scikit-learn's digits and its two photographs, in cuttings.
No package carries speech or music of any length. So sound is made of a physical model: strings that are plucked
(Karplus and Strong 1983) for music, and pulses through the resonances of vowels for a voice.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import real_models
from numpy.typing import NDArray

Array = NDArray[Any]

_RATE = 16_000
_PACKAGES = ("numpy", "onnx", "sklearn", "scipy", "opentelemetry")
_TEXTS = {".py", ".pyi", ".txt", ".md", ".rst", ".json", ".c", ".h", ".html", ".css", ".csv", ".f90", ".xml"}
_BINARIES = {".so", ".pyc", ".npz", ".npy", ".pb", ".onnx", ".jpg", ".wav", ".gz", ".mat"}


def kept(name: str, make: Callable[[], list[Array]]) -> list[Array]:
    """What ``make`` gives, kept beside the tests' models: each of many processes takes it from there."""
    key = hash_of(Path(__file__).read_text() + name)
    path = real_models.cache_folder() / f"fault-data-{name}-{key:08x}.npy"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            np.save(new := Path(scratch) / path.name, np.stack(make()))
            new.replace(path)
    return list(np.load(path))


def _files(kinds: set[str], count: int) -> list[Path]:
    found: list[Path] = []
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            found += [
                path for path in sorted(Path(root).rglob("*")) if path.suffix in kinds and path.is_file()
            ]
    found = [path for path in found if path.stat().st_size > 200]
    # Neighbours in a folder are alike: all are in the order that a hash of their names gives.
    found.sort(key=lambda path: hash_of(path.name + str(path.stat().st_size)))
    return found[:count]


def hash_of(text: str) -> int:
    """The same number for the same text in each process, unlike ``hash``."""
    return zlib.crc32(text.encode())


def file_bytes(count: int, *, binary: bool = False) -> list[Array]:
    """Features of real files, as magika takes them: int32 (2048,)."""
    config = json.loads(real_models.magika_float().with_name("config.min.json").read_text())
    block, padding, first, last = (config[k] for k in ("block_size", "padding_token", "beg_size", "end_size"))
    rows: list[Array] = []
    for path in _files(_BINARIES if binary else _TEXTS, count):
        content = path.read_bytes()
        row = np.full(first + last, padding, dtype=np.int32)
        head, tail = content[:block].lstrip()[:first], content[-block:].rstrip()[-last:]
        row[: len(head)] = np.frombuffer(head, np.uint8)
        row[len(row) - len(tail) :] = np.frombuffer(tail, np.uint8)
        rows.append(row)
    return rows


def digits(count: int) -> list[Array]:
    """Handwritten digits, 0 to 16: float32 (8, 8, 1), in random order."""
    images = real_models.digits_inputs(1797) * np.float32(16)
    return list(images[np.random.default_rng(1).permutation(len(images))[:count]])


@functools.cache
def _photographs() -> tuple[Array, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(load_sample_images().images)


def cuttings(count: int, size: int = 128) -> list[Array]:
    """Squares out of photographs, at random places and of random widths: uint8 (size, size, 3)."""
    rng, found = np.random.default_rng(2), []
    for number in range(count):
        photograph = _photographs()[number % 2]
        height, width, _ = photograph.shape
        side = int(rng.integers(size, height)) if size < height else height
        top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        at = np.arange(size) * side // size
        found.append(photograph[top + at][:, left + at])
    return found


def small_cuttings(count: int) -> list[Array]:
    """Grey squares of photographs in the shape and range of `digits`."""
    return [(c.mean(-1, keepdims=True) / 16).astype(np.float32) for c in cuttings(count, 8)]


def large_digits(count: int) -> list[Array]:
    """Digits in the shape and range of `cuttings`."""
    return [
        np.repeat(np.repeat(np.repeat(image, 16, 0), 16, 1), 3, 2).clip(0, 16).astype(np.float32) * 15.9
        for image in digits(count)
    ]


@functools.cache
def music(seconds: int, rate: int = _RATE) -> Array:
    """Plucked strings, a few at a time: float32 in -1..1."""
    from scipy.signal import lfilter

    rng, out = np.random.default_rng(3), np.zeros((seconds + 3) * rate, np.float64)
    at = 0.0
    while at < seconds:
        pitch = 110.0 * 2.0 ** (int(rng.integers(0, 36)) / 12)
        period = int(rate / pitch)
        pluck = np.zeros(2 * rate)
        pluck[:period] = rng.uniform(-1, 1, period)
        loop = np.zeros(period + 2)
        loop[0], loop[period], loop[period + 1] = 1.0, -0.498, -0.498
        note = lfilter([1.0], loop, pluck) * rng.uniform(0.1, 0.4)
        begin = int(at * rate)
        out[begin : begin + len(note)] += note
        at += float(rng.choice([0.125, 0.25, 0.25, 0.5]))
    return np.clip(out[: seconds * rate], -1, 1).astype(np.float32)


# First three resonances of five vowels, in hertz (Peterson and Barney 1952, men).
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


@functools.cache
def voice(seconds: int, rate: int = _RATE) -> Array:
    """Syllables of a voice with pauses and a little noise: float32 in -1..1."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(4)
    out = rng.normal(0, 0.003, seconds * rate)
    at = 0
    while at < len(out) - rate:
        if rng.random() < 0.25:
            at += int(rng.uniform(0.2, 0.8) * rate)
            continue
        length = int(rng.uniform(0.1, 0.3) * rate)
        pitch = np.linspace(rng.uniform(90, 180), rng.uniform(90, 180), length)
        phase = np.cumsum(pitch / rate)
        sound = np.diff(np.floor(phase), prepend=0.0) + rng.normal(0, 0.02, length)
        for frequency in _VOWELS[int(rng.integers(len(_VOWELS)))]:
            radius = np.exp(-np.pi * 90 / rate)
            sound = lfilter(
                [1.0], [1.0, -2 * radius * np.cos(2 * np.pi * frequency / rate), radius**2], sound
            )
        sound *= np.hanning(length) * rng.uniform(0.1, 0.5) / np.abs(sound).max()
        out[at : at + length] += sound
        at += length
    return np.clip(out, -1, 1).astype(np.float32)


def windows(sound: Array, size: int, step: int) -> list[Array]:
    """Parts of ``size`` samples, each ``step`` after the one before."""
    return [sound[i : i + size] for i in range(0, len(sound) - size + 1, step)]


def speech_features(sound: Array) -> list[Array]:
    """Three frames of 40 bands each, as the wake word takes them: float32 (1, 3, 40)."""
    from pymicro_features import MicroFrontend

    frontend, frames = MicroFrontend(), []
    content = (sound * 32767).astype(np.int16).tobytes()
    at = 0
    while at + 320 <= len(content):
        made = frontend.process_samples(content[at : at + 320])
        at += max(2 * made.samples_read, 2)
        if made.features:
            frames.append(made.features)
    whole = np.asarray(frames[: len(frames) // 3 * 3], np.float32)
    return list(whole.reshape(-1, 1, 3, 40))
