"""``lookalike index``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from indexer.store import DEFAULT_STORE

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
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option(
    "--model", "model_name", default="faces", show_default=True, help="Bundle folder or shipped model."
)
@click.option("--collection", required=True, metavar="NAME", help="Made when it is not there.")
@store_option
@click.option(
    "--crop", metavar="full|centre:F|X,Y,W,H", help="How these pictures are framed; default: as the model's."
)
@click.option("--root-name", metavar="NAME", help="What the collection calls the source's folder.")
@click.option("--files-from", metavar="-|FILE", help="Pictures by name, one a line; - is standard input.")
@click.option("-0", "--null", "nul", is_flag=True, help="NUL stands between names of --files-from.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of --files-from; default: what its names have in common.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only paths or names like this; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="None like this; repeatable.")
@click.option("--hidden", is_flag=True, help="Also what begins with a dot.")
@click.option("--person-from", metavar="REGEX", help="Who it is, from the path; default: the folder's name.")
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
    sources: tuple[str, ...],
    model_name: str,
    collection: str,
    store: str,
    crop: str | None,
    root_name: str | None,
    files_from: str | None,
    nul: bool,
    root: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    hidden: bool,
    person_from: str | None,
    payload: Path | None,
    attributes: Path | None,
    checksum: bool,
    dry_run: bool,
    prune: bool,
    report: Path | None,
    max_pixels: int,
    provider: str,
    as_json: bool,
) -> None:
    """Put the pictures of folders into a collection.

    A source is a folder, a picture file, a tar archive, lfw, or a file that lookalike embed wrote. A run over
    an unchanged folder opens no picture; what has moved is not embedded again. Files that cannot be read are
    named and stop nothing; the exit code is then 3.
    """
    if not sources and files_from is None:
        raise click.UsageError("name a source: a folder, a picture file, a tar archive, lfw, or --files-from")
    if root is not None and files_from is None:
        raise click.UsageError("--root is the folder of --files-from; a source is its own")
    from indexer.latents import is_latents

    if any(map(is_latents, sources)):
        from indexer.embed_commands import index_latents

        index_latents(ctx)
        ctx.exit(0)
    from tqdm import tqdm

    from encoder.folders import PICTURE_SUFFIXES
    from encoder.images import Crop
    from encoder.model import Model
    from indexer.building import index_when_large
    from indexer.listing import read_list
    from indexer.load import known_roots, load, prepare_collection
    from indexer.payloads import read_tables
    from indexer.reading import Reading, person_pattern
    from indexer.report import events_to
    from indexer.sources import list_source, open_source
    from indexer.store import open_store

    reading = Reading(
        include=include,
        exclude=exclude,
        hidden=hidden,
        person=None if person_from is None else person_pattern(person_from),
        payload=read_tables(payload, attributes),
    )
    files = [] if files_from is None else read_list(files_from, nul=nul)
    with ExitStack() as stack:
        model = Model.open(model_name, provider=provider, threads=1)  # type: ignore[arg-type]  # click checked it
        opened = stack.enter_context(open_store(store))
        framing = None if crop is None else Crop.parse(crop)
        known = known_roots(opened, collection)
        found = [open_source(source, root_name=root_name, known=known, reading=reading) for source in sources]
        if files:
            found.append(list_source(files, root=root, root_name=root_name, known=known, reading=reading))
        prepare_collection(opened, collection, model, crop=framing)
        tell = stack.enter_context(events_to(report))
        bar = stack.enter_context(tqdm(unit="image", disable=None, leave=False))
        done = load(
            opened,
            collection,
            model,
            found,
            prune=prune,
            checksum=checksum,
            dry_run=dry_run,
            max_pixels=max_pixels,
            on_total=bar.reset,
            on_progress=bar.update,
            on_event=tell,
        )
        bar.close()
        if not dry_run:
            index_when_large(opened, collection, tell=partial(click.echo, err=True))
    for path, reason in done.failed:
        click.echo(f"failed: {reason if path in reason else f'{path}: {reason}'}", err=True)
    speed = f", {done.images_per_second:.0f} images/s" if done.images_per_second else ""
    click.echo(f"{collection}: {done.in_words()}; {done.seconds:.1f} s on {model.provider}{speed}", err=True)
    if done.seen == 0:
        click.echo(f"no pictures there; looked for {', '.join(sorted(PICTURE_SUFFIXES))}", err=True)
    if as_json:
        told = {"collection": collection, "store": store, "provider": model.provider}
        click.echo(json.dumps({**told, **done.to_json()}))
    ctx.exit(3 if done.failed else 0)
