"""The words that a shell completes: collections, models and fields as they are there now.

A shell waits for them and has nowhere to show an error: where something cannot be read, there are none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

import click

from lookalike.encoder.errors import LookalikeError

Complete = Callable[[click.Context, click.Parameter, str], list[str]]
_SAMPLE = 64
"""Items whose fields are named."""


def _completing(words: Callable[[click.Context], Iterable[str]]) -> Complete:
    """Return click's ``shell_complete`` of the words that begin with what is typed."""

    def complete(ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
        with suppress(LookalikeError, OSError):
            return sorted(word for word in words(ctx) if word.startswith(typed))
        return []

    return complete


def _collections(ctx: click.Context) -> Iterable[str]:
    from lookalike.indexer.open import open_store

    with open_store(ctx.params["store"]) as store:
        return [*store.list_collections(), *store.aliases()]


def _models(_ctx: click.Context) -> Iterable[str]:
    from lookalike.encoder.bundle import own_bundles, shipped_bundles

    return {*shipped_bundles(), *own_bundles()}


def _fields(ctx: click.Context) -> Iterable[str]:
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection, field_names

    named = ctx.params.get("collection") or os.environ.get("LOOKALIKE_COLLECTION")
    with open_store(ctx.params["store"]) as store:
        items = islice(store.scroll(choose_collection(store, named)), _SAMPLE)
        return {field for item in items for field in field_names(item.payload)}


complete_collections = _completing(_collections)
complete_models = _completing(_models)
complete_fields = _completing(_fields)
