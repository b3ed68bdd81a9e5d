"""Source files in several languages, made of a fixed seed: the same bytes on every machine and Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

_VOCABULARY: Final = """
account batch buffer cache client cursor device digest event field filter frame handle header index item key latency
layer limit lock map message metric model node offset order packet page path point queue range record region result
row sample scale session shape signal size span state stream table tensor token trace value
"""
_WORDS: Final = _VOCABULARY.split()


class _Words:
    """Words and numbers drawn one after the other."""

    def __init__(self, seed: int) -> None:
        # Of all methods of Random only random() promises the same sequence in every version of Python.
        self._draw = random.Random(seed).random

    def below(self, limit: int) -> int:
        return int(self._draw() * limit)

    def __call__(self) -> str:
        return _WORDS[self.below(len(_WORDS))]


def _python(w: _Words) -> str:
    a, b, c = w(), w(), w()
    return (
        f"def {a}_{b}({c}, {w()}=None):\n"
        f'    """Return the {b} of each {c}, or None past {w.below(100)}."""\n'
        f"    if not {c}:\n        raise ValueError(f'no {a} in {{{c}!r}}')\n"
        f"    return [self.{w()}.{b} for {b} in {c} if {b} > {w.below(1000)}]\n\n\n"
    )


def _c(w: _Words) -> str:
    a, b, c = w(), w(), w()
    return (
        f"/* Copies the {a} into the {b}. */\nstatic int {a}_{b}(struct {a} *{c}, size_t n)\n{{\n"
        f"\tif (!{c} || n > {w.below(4096)})\n\t\treturn -EINVAL;\n"
        f"\tmemcpy({c}->{b}, &{a}_{w()}[{w.below(64)}], n * sizeof(*{c}));\n\treturn 0;\n}}\n\n"
    )


def _json(w: _Words) -> str:
    return (
        f' {{"{w()}": {w.below(10**6)}, "{w()}": ["{w()}", "{w()}", {w.below(100) / 7}], "{w()}": null}},\n'
    )


def _html(w: _Words) -> str:
    return f'<div class="{w()} {w()}"><p id="{w()}{w.below(99)}">The {w()} of a <b>{w()}</b> &amp; {w()}.</p></div>\n'


def _css(w: _Words) -> str:
    return (
        f".{w()} > .{w()}:hover {{\n  margin: {w.below(32)}px auto;\n  color: #{w.below(16**6):06x};\n}}\n\n"
    )


def _sql(w: _Words) -> str:
    return (
        f"SELECT {w()}.{w()}, COUNT(*) AS {w()}\n  FROM {w()} INNER JOIN {w()} ON {w()}_id = {w()}_id\n"
        f" WHERE {w()} > {w.below(1000)} AND {w()} IS NOT NULL\n GROUP BY {w()};\n\n"
    )


def _shell(w: _Words) -> str:
    return (
        f'if [ -z "${w().upper()}" ]; then\n  echo "no {w()} in ${{{w().upper()}}}" >&2\n  exit {w.below(9)}\nfi\n'
        f"for {w()} in /var/lib/{w()}/*.{w()}; do\n  grep -q '{w()}' \"${w()}\" || rm -f {w()}.tmp\ndone\n"
    )


def _yaml(w: _Words) -> str:
    return f"- name: {w()}-{w()}\n  {w()}:\n    {w()}: {w.below(1000)}\n    {w()}: [{w()}, {w()}]\n  enabled: true\n"


def _javascript(w: _Words) -> str:
    a, b = w(), w()
    return (
        f"export async function {a}({b}, {{ {w()} = {w.below(50)} }} = {{}}) {{\n"
        f"  const {w()}s = await fetch(`/api/{w()}/${{{b}.id}}`);\n"
        f"  return {b}.filter((x) => x.{w()} !== undefined).map((x) => x.{w()});\n}}\n\n"
    )


def _rust(w: _Words) -> str:
    a, b = w(), w()
    return (
        f"impl {a.title()} {{\n    pub fn {b}(&mut self, {w()}: &[u8]) -> Result<usize, Error> {{\n"
        f"        let {w()} = self.{b}.iter().filter(|x| x.len() > {w.below(99)}).count();\n"
        f"        Ok({w.below(9)}usize.saturating_add(self.{w()}))\n    }}\n}}\n\n"
    )


def _csv(w: _Words) -> str:
    return (
        f"{w.below(10**6)},{w()},{w()} {w()},{w.below(10**4) / 8},2026-0{1 + w.below(9)}-{10 + w.below(18)}\n"
    )


def _text(w: _Words) -> str:
    return (
        f"A {w()} holds the {w()} of its {w()}. When the {w()} is full, a {w()} waits for the next {w()}.\n"
    )


_KINDS: Final[tuple[tuple[str, Callable[[_Words], str]], ...]] = (
    ("import os\nfrom typing import Any\n\n\n", _python),
    ("#include <stdio.h>\n#include <string.h>\n\n", _c),
    ("[\n", _json),
    ("<!DOCTYPE html>\n<html>\n<head><title>Page</title></head>\n<body>\n", _html),
    ("@charset 'utf-8';\n\n", _css),
    ("-- Reports\n", _sql),
    ("#!/bin/sh\nset -eu\n", _shell),
    ("---\n", _yaml),
    ("'use strict';\nimport { api } from './api.js';\n\n", _javascript),
    ("use std::fmt;\n\n", _rust),
    ("id,name,title,value,day\n", _csv),
    ("", _text),
)


def source_texts(count: int, size: int) -> list[bytes]:
    """``count`` files of at least ``size`` bytes, twelve languages in turn, no two alike."""
    found = []
    for number in range(count):
        head, part = _KINDS[number % len(_KINDS)]
        words, text = _Words(number), head
        while len(text) < size:
            text += part(words)
        found.append(text.encode())
    return found
