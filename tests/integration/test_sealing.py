"""Credentials at rest: opened with any of our keys, and with no other."""

from __future__ import annotations

from typing import Any

import pytest

from deliverability.sealing import SealBroken, seal, unseal


def test_what_is_sealed_can_be_opened_and_not_read(settings: Any) -> None:
    sealed = seal("pässword")

    assert "pässword".encode() not in sealed
    assert unseal(sealed) == "pässword"
    assert unseal(memoryview(sealed)) == "pässword"  # type: ignore[arg-type]  # as a database gives it
    assert seal("pässword") != sealed


def test_nothing_is_sealed_as_nothing() -> None:
    assert seal("") == b""
    assert unseal(b"") == ""


def test_a_former_key_still_opens_and_the_new_one_seals(settings: Any) -> None:
    settings.SECRET_KEY = "the former key"
    sealed = seal("secret")

    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the new key", ["the former key"]
    assert unseal(sealed) == "secret"
    resealed = seal("secret")
    settings.SECRET_KEY_FALLBACKS = []
    assert unseal(resealed) == "secret"


@pytest.mark.parametrize("damage", ["key", "bytes", "noise"])
def test_a_broken_seal_says_what_to_do(settings: Any, damage: str) -> None:
    sealed = seal("secret")
    if damage == "key":
        settings.SECRET_KEY = "quite another key"
    elif damage == "bytes":
        sealed = sealed[:-6] + b"AAAAAA"
    else:
        sealed = b"no token at all"

    with pytest.raises(SealBroken, match="SECRET_KEY_FALLBACKS"):
        unseal(sealed)
