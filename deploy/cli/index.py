"""``lookalike index``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.layout_commands import laying_out
from lookalike.deploy.cli.options import Selection, selecting
from lookalike.indexer.open import DEFAULT_STORE

if TYPE_CHECKING:
    from lookalike.indexer.store.layout import StorageConfig

__all__ = ["index", "store_option"]

store_option = click.option(
    "--store",
    default=DEFAULT_STORE,
    show_default=True,
    envvar="LOOKALIKE_STORE",
    metavar="FOLDER|URL",
    help="Embedded store or Qdrant server (its key: QDRANT_API_KEY).",
)


@click.command(epilog="Example: lookalike index photos/ --model faces --collection family")
@click.option(
    "--model", "model_name", default="faces", show_default=True, help="Bundle folder or shipped model."
)
@click.option("--collection", required=True, metavar="NAME", help="Made when it is not there.")
@store_option
@click.option(
    "--crop", metavar="full|centre:F|X,Y,W,H", help="How these pictures are framed; default: as the model's."
)
@selecting
@click.option(
    "--payload",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV or JSONL with a column path: more to store with each picture.",
)
@click.option(
    "--attributes",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Scores by person and number, as lfw_attributes.txt has them.",
)
@click.option(
    "--predict",
    metavar="NAME,...",
    help="Read these attributes off every picture (lookalike attributes list) and store them, where no table "
    "knows them; over 0 means more likely there than not.",
)
@laying_out
@click.option("--checksum", is_flag=True, help="Compare contents (SHA-256), not size and time.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--prune", is_flag=True, help="Remove what is stored and no longer in the folder.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON lines: what became of each picture that was not simply added or left.",
)
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
    chosen: Selection,
    layout: StorageConfig,
    model_name: str,
    collection: str,
    store: str,
    crop: str | None,
    payload: Path | None,
    attributes: Path | None,
    predict: str | None,
    checksum: bool,
    dry_run: bool,
    prune: bool,
    report: Path | None,
    max_pixels: int,
    provider: str,
    as_json: bool,
) -> None:
    """Put the pictures of folders into a collection.

    A source is a folder, a picture file, a tar archive, lfw, mnist, or a file that lookalike embed wrote. A
    run over an unchanged folder opens no picture; what has moved is not embedded again. Files that cannot be
    read are named and stop nothing; the exit code is then 3.
    """
    from lookalike.indexer.parquet.file import is_latents

    if any(map(is_latents, chosen.sources)):
        from lookalike.deploy.cli.embed_commands import index_latents

        index_latents(ctx, layout)
        ctx.exit(0)
    from lookalike.deploy.cli.bar import progress_bar
    from lookalike.encoder.images.discover import IMAGE_SUFFIXES
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.encoder.runtime.model import Model
    from lookalike.indexer.open import open_store
    from lookalike.indexer.sources.payload_tables import read_tables
    from lookalike.indexer.sync.report import event_log
    from lookalike.indexer.sync.sync import sync

    sources = chosen.source_list(read_tables(payload, attributes))
    names = [] if predict is None else [name.strip() for name in predict.split(",")]
    with ExitStack() as stack:
        model = Model.open(model_name, provider=provider, threads=1)  # type: ignore[arg-type]  # click checked it
        opened = stack.enter_context(open_store(store))
        on_event = stack.enter_context(event_log(report))
        bar = stack.enter_context(progress_bar())
        done = sync(
            opened,
            collection,
            model,
            sources,
            crop=None if crop is None else Crop.parse(crop),
            storage=layout,
            predict=names,
            prune=prune,
            checksum=checksum,
            dry_run=dry_run,
            max_pixels=max_pixels,
            processes=True,
            on_total=bar.on_total,
            on_progress=bar.on_progress,
            on_event=on_event,
            log=bar.log,
        )
    for path, reason in done.failed:
        click.echo(f"failed: {reason if path in reason else f'{path}: {reason}'}", err=True)
    speed = f", {done.images_per_second:.0f} images/s" if done.images_per_second else ""
    click.echo(
        f"{done.collection}: {done.summary()}; {done.seconds:.1f} s on {model.provider}{speed}", err=True
    )
    if done.seen == 0:
        click.echo(f"no pictures there; looked for {', '.join(sorted(IMAGE_SUFFIXES))}", err=True)
    if names:
        click.echo(f"{', '.join(names)}: predicted for {done.predicted} pictures", err=True)
    if as_json:
        click.echo(json.dumps({"store": store, **done.to_json()}))
    ctx.exit(3 if done.failed else 0)
