"""``lookalike duplicates``: copies among the images of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.options import (
    LocalPath,
    collection_option,
    command,
    json_option,
    open_option,
    option,
    store_option,
    where_option,
)
from lookalike.deploy.cli.output import log, log_failed, print_json, progress_bar, save_sheet, warn
from lookalike.deploy.cli.similar.printed import from_here, log_missing, output_form, print_files, which_face

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lookalike.indexer.store import Filter
    from lookalike.searcher.duplicates import DuplicateGroup

_FEW: Final = 10
"""Images: of so many most may well be copies."""


@command(epilog="Example: lookalike duplicates --collection family --sheet copies.png")
@collection_option()
@store_option
@option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    show_default="0.8",
    help="Smallest similarity of two copies.",
)
@option("--exact", is_flag=True, help="Only files with the same bytes.")
@option(
    "--turned",
    is_flag=True,
    help="Also copies turned by 90, 180 or 270 degrees or mirrored: reads each image, embeds it six times.",
)
@option("--model", metavar="BUNDLE", help="Bundle folder for --turned, if it has moved since indexing.")
@where_option()
@option("--sheet", type=LocalPath(), help="Save the groups as an image, such as copies.png.")
@open_option()
@option(
    "--paths",
    "as_paths",
    is_flag=True,
    help="Print only the files that could go, all of a group but the largest, one path a line.",
)
@option("-0", "--null", is_flag=True, help="End each path with a null byte, for xargs -0; implies --paths.")
@json_option("Print a list on stdout, one object per group.")
@click.pass_context
def duplicates(
    ctx: click.Context,
    collection: str | None,
    store: str,
    threshold: float | None,
    exact: bool,
    turned: bool,
    model: str | None,
    where: Filter | None,
    sheet: Path | None,
    as_paths: bool,
    null: bool,
    as_json: bool,
) -> None:
    """Find copies among the images of a collection.

    These are identical files, and the same picture in another size, format or quality. Each group lists its
    largest file first, with the bytes of each. Nothing is deleted; --paths prints what could be, for example
    for xargs. Pictures of one moment can be as similar as copies: look at the --sheet first.
    """
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection
    from lookalike.searcher.duplicates import find_duplicates
    from lookalike.searcher.search import NEAR_COPY, Searcher

    if exact and threshold is not None:
        raise click.UsageError("--threshold does not work with --exact, which compares bytes: leave one out")
    form = output_form(as_json=as_json, as_paths=as_paths, null=null)
    limit = None if exact else NEAR_COPY if threshold is None else threshold
    failed: list[str] = []
    with open_store(store) as opened:
        name = choose_collection(opened, collection)
        total = opened.count(name)
        with progress_bar("Comparing", total=total) as bar:
            groups = find_duplicates(
                opened,
                name,
                threshold=limit,
                where=where,
                turned_by=Searcher.open(opened, name, model=model).model if turned else None,
                on_failed=failed.append,
                on_progress=bar.on_progress,
            )
        saved = None
        if sheet is not None and groups:
            from lookalike.searcher.figures import MAX_ROWS, duplicates_sheet

            saved = save_sheet(sheet, duplicates_sheet(opened, name, groups))
            saved += f", the first {MAX_ROWS} of {len(groups)} groups" if len(groups) > MAX_ROWS else ""
            log_missing(opened.info(name), name, [copy.payload for group in groups for copy in group.copies])
    if form == "json":
        print_json([group.to_json() for group in groups])
    elif form == "table":
        _print_groups(groups)
    else:
        print_files([copy.file for group in groups for copy in group.spare], form)
    copies = sum(len(group.spare) for group in groups)
    spare = sum(group.spare_bytes for group in groups)
    identical = sum(group.identical for group in groups)
    count = f"{len(groups)} group{'s' * (len(groups) > 1)}"
    log(
        f"{name}: {count} of copies, {identical} of them of identical files; "
        f"{copies} files ({spare / 1e6:.1f} MB) beside the largest of each"
        if groups
        else f"{name}: no copies"
    )
    if saved is not None:
        log(saved)
    if limit is not None and 2 * copies > total > _FEW:
        warn(
            f"{copies} of {total} images count as copies of others, which may be too many for this model: "
            f"look at the --sheet, and give --threshold {(1 + limit) / 2:g} or --exact"
        )
    log_failed(failed)
    ctx.exit(3 if failed else 0)


def _print_groups(groups: Sequence[DuplicateGroup]) -> None:
    from lookalike.encoder.errors import printable

    for number, group in enumerate(groups):
        how = "identical files" if group.identical else f"similarity {group.similarity:.3f}"
        click.echo(f"{chr(10) if number else ''}{len(group.copies)} copies, {how}")
        for copy in group.copies:
            click.echo(
                f"{copy.bytes:>12,}  {printable(from_here(copy.file, copy.path))}{which_face(copy.payload)}"
            )
