"""``lookalike index`` and ``lookalike collections``."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack

import click

from indexer.store import DEFAULT_STORE

__all__ = ["collections", "index", "store_option"]

store_option = click.option(
    "--store",
    default=DEFAULT_STORE,
    show_default=True,
    envvar="LOOKALIKE_STORE",
    metavar="FOLDER|URL",
    help="Embedded store or Qdrant server (its key: QDRANT_API_KEY).",
)


@click.command(epilog="Example: lookalike index photos/ --model faces --collection family")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--model", "model_name", default="faces", show_default=True, help="Bundle folder or shipped model."
)
@click.option("--collection", required=True, metavar="NAME", help="Made when it is not there.")
@store_option
@click.option(
    "--crop", metavar="full|centre:F|X,Y,W,H", help="How these pictures are framed; default: as the model's."
)
@click.option("--root-name", metavar="NAME", help="What the collection calls the source's folder.")
@click.option("--prune", is_flag=True, help="Remove what is stored and no longer in the folder.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=50_000_000,
    show_default=True,
    help="Larger pictures are left out.",
)
@click.option("--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
@click.pass_context
def index(
    ctx: click.Context,
    sources: tuple[str, ...],
    model_name: str,
    collection: str,
    store: str,
    crop: str | None,
    root_name: str | None,
    prune: bool,
    max_pixels: int,
    provider: str,
    as_json: bool,
) -> None:
    """Put the pictures of folders into a collection.

    A source is a folder, a picture file, lfw, or a file that lookalike embed wrote. A run over an unchanged
    folder opens no picture. Files that cannot be read are named and stop nothing; the exit code is then 3.
    """
    from indexer.latents import is_latents

    if any(map(is_latents, sources)):
        from indexer.embed_commands import index_latents

        index_latents(ctx)
        ctx.exit(0)
    from tqdm import tqdm

    from encoder.folders import PICTURE_SUFFIXES
    from encoder.images import Crop
    from encoder.model import Model
    from indexer.load import known_roots, load, prepare_collection
    from indexer.sources import open_source
    from indexer.store import open_store

    with ExitStack() as stack:
        model = Model.open(model_name, provider=provider, threads=1)  # type: ignore[arg-type]  # click checked it
        opened = stack.enter_context(open_store(store))
        framing = None if crop is None else Crop.parse(crop)
        known = known_roots(opened, collection)
        found = [open_source(source, root_name=root_name, known=known) for source in sources]
        prepare_collection(opened, collection, model, crop=framing)
        bar = stack.enter_context(tqdm(unit="image", disable=None, leave=False))
        report = load(
            opened,
            collection,
            model,
            found,
            prune=prune,
            max_pixels=max_pixels,
            on_total=bar.reset,
            on_progress=bar.update,
        )
    speed = f", {report.images_per_second:.0f} images/s" if report.images_per_second else ""
    for path, reason in report.failed:
        click.echo(f"failed: {reason if path in reason else f'{path}: {reason}'}", err=True)
    click.echo(
        f"{collection}: {report.added} added, {report.changed} changed, {report.unchanged} unchanged, "
        f"{report.missing} missing{' and removed' if prune else ''}, {len(report.failed)} failed; "
        f"{report.seconds:.1f} s on {model.provider}{speed}",
        err=True,
    )
    if report.seen == 0:
        click.echo(f"no pictures there; looked for {', '.join(sorted(PICTURE_SUFFIXES))}", err=True)
    if as_json:
        told = {"collection": collection, "store": store, "provider": model.provider}
        click.echo(json.dumps({**told, **report.to_json()}))
    ctx.exit(3 if report.failed else 0)


@click.group()
def collections() -> None:
    """List, show or delete collections."""


@collections.command("list", epilog="Example: lookalike collections list")
@store_option
@click.option("--json", "as_json", is_flag=True, help="A list of objects on stdout.")
def list_(store: str, as_json: bool) -> None:
    """List the collections of a store."""
    from indexer.store import open_store

    with open_store(store) as opened:
        rows = [
            {"name": name, "count": opened.count(name), **opened.describe(name).to_json()}
            for name in opened.names()
        ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo(f"no collection in {store}; lookalike index makes one", err=True)
    for row in rows:
        click.echo(f"{row['name']:<24} {row['count']:>9}  {row['model_name']} ({str(row['model_id'])[:12]})")


@collections.command(epilog="Example: lookalike collections show faces")
@click.argument("name")
@store_option
@click.option("--json", "as_json", is_flag=True, help="An object on stdout.")
def show(name: str, store: str, as_json: bool) -> None:
    """Show what a collection remembers about itself."""
    from indexer.store import open_store

    with open_store(store) as opened:
        values = {"name": name, "count": opened.count(name), **opened.describe(name).to_json()}
    if as_json:
        click.echo(json.dumps(values))
        return
    for key, value in values.items():
        click.echo(f"{key:<12} {value if not isinstance(value, dict) else ''}".rstrip())
        if isinstance(value, dict):
            for inner, text in value.items():
                click.echo(f"  {inner:<10} {text}")


@collections.command(epilog="Example: lookalike collections delete old --yes")
@click.argument("name")
@store_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, store: str, yes: bool) -> None:
    """Delete a collection and everything in it. The pictures themselves are not touched."""
    from indexer.store import open_store

    with open_store(store) as opened:
        count = opened.count(name)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(
                    f"deleting {name} ({count} items) needs --yes where nobody can be asked"
                )
            click.confirm(f"delete {name} with {count} items from {store}?", abort=True, err=True)
        opened.drop(name)
    click.echo(f"deleted {name}: {count} items", err=True)
