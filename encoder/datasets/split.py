"""People of each part of a split, chosen by a hash of their names: the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

VALIDATION_SHARE: Final = 0.08


def validation_people(people: Iterable[str]) -> frozenset[str]:
    """Return the validation people among those who are not held out: 8 % of them, at least one."""
    return select({person: share_of(f"validation {person}") for person in people}, VALIDATION_SHARE)


def select(shares: Mapping[str, float], below: float) -> frozenset[str]:
    """Return the people whose share is below a limit: at least one, and at most a third of them."""
    count = sum(share < below for share in shares.values())
    count = max(1, min(count, len(shares) // 3))
    return frozenset(sorted(shares, key=lambda person: shares[person])[:count])


def share_of(name: str) -> float:
    """Map a name to [0, 1) by its SHA-256: the same on every machine and whatever the other names are."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8]) / 2**64
