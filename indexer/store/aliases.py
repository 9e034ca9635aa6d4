"""Aliases as both stores understand them: resolving one, and the errors of a name that cannot be one."""

from __future__ import annotations

from lookalike.encoder.errors import CollectionExistsError, CollectionNotFoundError, StoreError
from lookalike.indexer.store.base import VectorStore


def resolve_alias(store: VectorStore, name: str) -> str:
    """Return the collection of an alias, or ``name`` itself when it is not an alias."""
    return store.aliases().get(name, name)


def alias_conflict(address: str, alias: str, name: str) -> CollectionExistsError:
    """Return the error for a collection name that is taken by an alias."""
    return CollectionExistsError(
        f"{alias!r} on {address} is an alias of collection {name!r}; choose another name for the collection"
    )


def aliased_collection(address: str, alias: str) -> CollectionExistsError:
    """Return the error for an alias that is the name of a collection."""
    return CollectionExistsError(
        f"{alias!r} on {address} is a collection, no alias; choose another alias, or copy the collection to "
        "another name and delete it"
    )


def missing_alias(address: str, alias: str, aliases: dict[str, str]) -> CollectionNotFoundError:
    """Return the error for an alias that does not exist."""
    return CollectionNotFoundError(
        f"no alias {alias!r} on {address}; it has: {', '.join(sorted(aliases)) or 'none'}"
    )


def check_unaliased(address: str, name: str, aliases: dict[str, str]) -> None:
    """Check before deleting a collection that it is not an alias and has none.

    Raises:
        StoreError: it is one or has one.
    """
    if name in aliases:
        raise StoreError(
            f"{name!r} on {address} is an alias of collection {aliases[name]!r}; remove it with "
            f"lookalike collections switch {name} --remove"
        )
    if pointing := sorted(alias for alias, real in aliases.items() if real == name):
        raise StoreError(
            f"collection {name!r} on {address} is what {', '.join(pointing)} stands for; point that on with "
            f"lookalike collections switch {pointing[0]} OTHER, or remove it with --remove"
        )
