"""What the commands that make collections have in common: the options of how a new one lies in its store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, Final

import click

__all__ = ["laying_out"]

_OPTIONS: Final = (
    click.option(
        "--expect",
        type=click.IntRange(min=0),
        metavar="N",
        help="Vectors that a new collection will hold; where the options below are not given they go by it "
        "(beyond 10 million: int8, on disk). They change nothing about a collection that is there.",
    ),
    click.option("--shards", type=click.IntRange(min=1), help="Server: parts; default: two for each peer."),
    click.option(
        "--replicas", type=click.IntRange(min=1), help="Server: copies of each; default: 2 in a cluster."
    ),
    click.option(
        "--quantization",
        type=click.Choice(["none", "int8", "binary"]),
        help="Search small copies, rescored by the vectors, made with the index: int8 finds the same, binary "
        "is for 512 numbers or more and misses one hit in seventy.",
    ),
    click.option("--on-disk/--in-memory", "on_disk", default=None, help="Where the original vectors are."),
    click.option("--hnsw-m", type=click.IntRange(min=4), help="Edges in the index's graph; default: 16."),
    click.option(
        "--hnsw-ef-construct", type=click.IntRange(min=4), help="Care in building it; default: 128."
    ),
    click.option(
        "--hnsw-payload-m", type=click.IntRange(min=0), help="Edges among those of one value; default: 0."
    ),
)


def laying_out(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a new collection's layout, all as its argument ``layout``."""

    @wraps(command)
    def with_layout(*words: Any, **options: Any) -> None:
        from lookalike.indexer.store.layout import StorageConfig

        said = {
            field.name: options.pop(field.name) for field in fields(StorageConfig) if field.name in options
        }
        command(*words, layout=StorageConfig(**said), **options)

    for option in reversed(_OPTIONS):
        option(with_layout)
    return with_layout
