"""``lookalike collections create`` and ``switch``: a fresh collection, and what it is called by."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.index import store_option
from lookalike.deploy.cli.layout_commands import laying_out

if TYPE_CHECKING:
    from lookalike.indexer.store.layout import StorageConfig

__all__ = ["create", "switch"]


@click.command(
    epilog="Example: lookalike collections create faces-2 --model faces --expect 20000000 --store http://localhost:6333"
)
@click.argument("name")
@click.option(
    "--model", "model_name", default="faces", show_default=True, help="Bundle folder or shipped model."
)
@store_option
@click.option(
    "--crop",
    metavar="full|center:F|X,Y,W,H",
    help="How its pictures are framed; default: as the model's.",
)
@laying_out
@click.option("--json", "as_json", is_flag=True, help="An object on stdout.")
def create(
    name: str, model_name: str, store: str, crop: str | None, layout: StorageConfig, as_json: bool
) -> None:
    """Make an empty collection for a model's vectors, laid out for as many as are expected.

    lookalike index makes one too; this is for a layout that is to be settled, or looked at, first.
    """
    from lookalike.encoder.bundle.bundle import Bundle
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.indexer.open import open_store
    from lookalike.indexer.sync.collection import new_spec

    bundle = Bundle.open(model_name)
    with open_store(store) as opened:
        spec = new_spec(bundle, crop=None if crop is None else Crop.parse(crop))
        opened.create(name, spec, layout)
        made = opened.index_state(name).layout
    told = {} if made is None else made.to_json()
    memory = None
    if made is not None and layout.expect:
        memory = made.memory_bytes(layout.expect, spec.dimension)
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items())
    click.echo(f"made {name} for {spec.dimension} numbers a vector: {words}", err=True)
    if memory is not None:
        click.echo(
            f"{layout.expect} of them take {memory / 1e9:.2f} GB of memory, all copies together", err=True
        )

    if as_json:
        values = {"name": name, "store": store, **spec.to_json()}
        click.echo(json.dumps({**values, "layout": told, "memory_bytes": memory}))


@click.command(epilog="Example: lookalike collections switch faces faces-2")
@click.argument("alias")
@click.argument("name", required=False)
@store_option
@click.option("--remove", is_flag=True, help="Take the alias away, in place of NAME.")
def switch(alias: str, name: str | None, store: str, remove: bool) -> None:
    """Have an alias stand for a collection from now on: whoever asks for ALIAS reads NAME at once.

    So pictures are embedded anew, or by another model, into a collection of another name while the old one
    goes on answering; then the alias is switched, and the old one deleted.
    """
    from lookalike.indexer.open import open_store

    if remove == (name is not None):
        raise click.UsageError("switch an alias to the name of a collection, or give --remove without one")
    with open_store(store) as opened:
        before = opened.aliases().get(alias)
        opened.set_alias(alias, name)
        now = opened.aliases().get(alias)
    if now is None:
        click.echo(f"{alias}: no alias any more; {before} stays", err=True)
    else:
        was = "" if before in (None, now) else f", {before} before"
        click.echo(f"{alias} stands for {now}{was}", err=True)
