"""Where a change is, from what each process says of it."""

from __future__ import annotations

import pytest

from otel_quantmon.detection.placement import Place, Subject, Witness, lacking, place

MOVED, STAYED, OPEN = Witness(30.0, -30.0, True), Witness(-9.0, 9.0), Witness(0.1, 0.1)
LEANS = Witness(2.0, -2.0)


def at(host: str, service: str = "ocr", version: str = "v1", isa: str = "x86_64+avx2") -> Subject:
    return Subject(host, service, version, isa)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({at("a"): MOVED, at("b"): STAYED}, Place("host", ("a",))),
        ({at("a"): MOVED, at("b"): MOVED}, Place("everywhere")),
        ({at("a"): MOVED, at("b"): OPEN}, None),
        ({at("a"): MOVED}, Place("unknown", ("a",))),
        ({at("a"): OPEN, at("b"): OPEN}, None),
        # Nobody is sure alone, and all together are.
        ({at(str(n)): LEANS for n in range(9)}, Place("everywhere")),
        # One that leans far is not taken for all.
        ({at("a"): Witness(3.6, -3.6), **{at(str(n)): OPEN for n in range(9)}}, None),
        ({at("a"): MOVED, **{at(str(n)): LEANS for n in range(9)}}, Place("everywhere")),
        (
            {at("a", version="v2"): MOVED, at("b", version="v2"): MOVED, at("c"): STAYED},
            Place("version", ("a", "b"), ("v2",)),
        ),
        # The others of that version have nothing to say yet: it may be the version or the host.
        ({at("a", version="v2"): MOVED, at("b", version="v2"): OPEN, at("c"): STAYED}, None),
        (
            {at("a", version="v2"): MOVED, at("b", version="v2"): STAYED, at("c"): STAYED},
            Place("host", ("a",)),
        ),
        (
            {at("a", "mail"): MOVED, at("b", "mail"): MOVED, at("a"): STAYED, at("b"): STAYED},
            Place("service", ("a", "b"), services=("mail",)),
        ),
        (
            {at("a"): MOVED, at("b", isa="x86_64+avx512_vnni+avx2"): STAYED},
            Place("host", ("a",), lacking=("avx512_vnni",)),
        ),
    ],
)
def test_where(said: dict[Subject, Witness], expected: Place | None) -> None:
    """One host, all, a version, a service; nothing while the rest has not been heard."""
    assert place(said) == expected


def test_patience_ends() -> None:
    """A host is named although others with its version may follow, if it has been waited for."""
    said = {at("a", version="v2"): MOVED, at("b", version="v2"): OPEN, at("c"): STAYED}
    assert place(said, patient=False) == Place("host", ("a",))


def test_what_is_lacking_is_what_all_others_have() -> None:
    """And none of those that moved; the machine's own name is no instruction set."""
    others = {at("b", isa="x86_64+vnni+avx2+x"), at("c", isa="x86_64+vnni+avx2")}
    assert lacking({at("a", isa="x86_64+avx2"), at("d", isa="aarch64")}, others) == ("vnni",)
    assert lacking({at("a", isa="x86_64+vnni+avx2")}, others) == ()
    assert lacking({at("a")}, set()) == ()


def test_a_place_comes_back_from_json() -> None:
    """As it was written."""
    one = Place("version", ("a",), ("v2",), ("s",), ("vnni",))
    assert Place.from_wire(one.to_wire()) == one
