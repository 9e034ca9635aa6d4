"""What a collection remembers about itself, as the metadata of a collection on a server.

The server merges metadata by top-level key. So each root has a key of its own, ``lookalike.root.NAME``: two
runs that add a root at the same time write different keys, and none is lost. All else is under ``lookalike``.
Earlier releases had the roots there too; that is still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lookalike.indexer.store import CollectionSpec

KEY: Final = "lookalike"
ROOT_KEY: Final = "lookalike.root."


def to_metadata(spec: CollectionSpec) -> dict[str, Any]:
    """Return the metadata of a spec, a key for each root."""
    values = spec.to_json()
    foreign = values.pop("foreign_roots", [])
    roots = {
        ROOT_KEY + root: {"folder": folder, "foreign": root in foreign}
        for root, folder in values.pop("roots").items()
    }
    return {KEY: values, **roots}


def spec_values(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what :meth:`CollectionSpec.from_json` reads; None when lookalike did not write this metadata."""
    values = (metadata or {}).get(KEY)
    if metadata is None or not isinstance(values, dict):
        return None
    own = {
        key.removeprefix(ROOT_KEY): value if isinstance(value, dict) else {}
        for key, value in sorted(metadata.items())
        if key.startswith(ROOT_KEY) and value is not None
    }
    roots = {**values.get("roots", {}), **{root: value.get("folder") for root, value in own.items()}}
    earlier = (root for root in values.get("foreign_roots", ()) if root not in own)
    foreign = [*earlier, *(root for root, value in own.items() if value.get("foreign"))]
    return {**values, "roots": roots, "foreign_roots": foreign}


def metadata_changes(
    metadata: Mapping[str, Any], current: CollectionSpec, new: CollectionSpec
) -> dict[str, Any]:
    """Return what has to be merged into the metadata for a new spec; a key with None is removed.

    Args:
        metadata: As it is.
        current: The spec in it.
        new: The spec to be in it.
    """
    before, after = to_metadata(current), to_metadata(new)
    if "roots" in metadata[KEY]:  # an earlier release wrote it: all keys are written once
        before = dict.fromkeys(before)
    changes = {key: value for key, value in after.items() if before.get(key) != value}
    return changes | dict.fromkeys(before.keys() - after.keys())
