"""``lookalike cluster``: groups of similar images in a collection, and their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.options import (
    Group,
    LocalPath,
    collection_option,
    json_option,
    option,
    store_option,
)
from lookalike.deploy.cli.output import log, print_json, progress_bar, save_sheet
from lookalike.deploy.cli.similar.printed import from_here, log_missing, which_face

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lookalike.indexer.store import Record, VectorStore
    from lookalike.searcher.clusters import Cluster, ClusterReport

_SHOWN: Final = 20
"""Groups that are printed for people."""
_ASKED: Final = 1000


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog="Example: lookalike cluster --collection family --sheet groups.png",
)
@collection_option()
@store_option
@option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    show_default="where one person is 800 times as likely as two; 0.7 where the model is not calibrated",
    help="Similarity from which two images are near.",
)
@option(
    "--min-size",
    type=click.IntRange(min=2),
    default=2,
    show_default=True,
    help="Images that a new group has at least.",
)
@option("--restart", is_flag=True, help="Forget all groups and their names first.")
@option("--dry-run", is_flag=True, help="Only report: nothing is written.")
@option("--sheet", type=LocalPath(), help="Save the groups as an image, one a row, such as groups.png.")
@json_option("Print a list on stdout, one object per group.")
@click.pass_context
def cluster(
    ctx: click.Context,
    collection: str | None,
    store: str,
    threshold: float | None,
    min_size: int,
    restart: bool,
    dry_run: bool,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Group the similar images of a collection.

    Where the images are faces, each group is mostly one person. Each image of a group gets its number as
    metadata field cluster, for --where cluster=7, --group-by cluster and lookalike facets cluster. Run it
    again after you add images: they join the groups, whose numbers and names stay. Similarity does not prove
    that images show one person: look at the --sheet.
    """
    if ctx.invoked_subcommand is not None:
        return
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection
    from lookalike.searcher.clusters import cluster_collection, collection_threshold

    with open_store(store) as opened:
        name = choose_collection(opened, collection)
        if threshold is None:
            threshold = collection_threshold(opened, name)
        with progress_bar("Comparing", total=opened.count(name)) as bar:
            report = cluster_collection(
                opened,
                name,
                threshold,
                min_size=min_size,
                restart=restart,
                dry_run=dry_run,
                on_progress=bar.on_progress,
            )
        if as_json:
            print_json(_as_json(opened, name, report.clusters))
        else:
            _print_clusters(opened, name, report.clusters)
        saved = None
        if sheet is not None and report.clusters:
            from lookalike.searcher.figures import MAX_ROWS, clusters_sheet

            saved = save_sheet(sheet, clusters_sheet(opened, name, report.clusters))
            if len(report.clusters) > MAX_ROWS:
                saved += f", the first {MAX_ROWS} of {len(report.clusters)} groups"
            shown = _examples(opened, name, report.clusters[:MAX_ROWS], _SHOWN)
            log_missing(opened.info(name), name, [record.payload for record in shown.values()])
    _log_report(name, report, threshold, dry_run=dry_run)
    if saved is not None:
        log(saved)


@cluster.command(epilog="Example: lookalike cluster name 7 Ada --collection family")
@click.argument("number", metavar="CLUSTER", type=click.IntRange(min=1))
@click.argument("text", metavar="NAME")
@collection_option()
@store_option
def name(number: int, text: str, collection: str | None, store: str) -> None:
    """Give a group a name; "" takes it away.

    It is stored as metadata field cluster_name of each image of the group, and shown where a person's name
    is. What folders and tables say of the person stays as it is.
    """
    from lookalike.encoder.errors import printable
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection
    from lookalike.searcher.clusters import name_cluster

    with open_store(store) as opened:
        chosen = choose_collection(opened, collection)
        size = name_cluster(opened, chosen, number, text)
    named = f"is called {printable(text)}" if text else "has no name now"
    log(f"{chosen}: group {number} of {size} images {named}")


@cluster.command(epilog="Example: lookalike cluster merge 7 9 --collection family")
@click.argument("numbers", metavar="CLUSTER CLUSTER...", nargs=-1, required=True, type=click.IntRange(min=1))
@collection_option()
@store_option
def merge(numbers: tuple[int, ...], collection: str | None, store: str) -> None:
    """Put all images of some groups into the first of them.

    It keeps its name, or takes that of the next one that has one.
    """
    from lookalike.encoder.errors import printable
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection
    from lookalike.searcher.clusters import merge_clusters

    with open_store(store) as opened:
        chosen = choose_collection(opened, collection)
        size, named = merge_clusters(opened, chosen, numbers[0], numbers[1:])
    log(f"{chosen}: group {numbers[0]}{f' ({printable(named)})' if named else ''} has {size} images now")


def _examples(store: VectorStore, name: str, clusters: Sequence[Cluster], each: int) -> dict[str, Record]:
    """Return the first items of groups, by id."""
    wanted = [id_ for group in clusters for id_ in group.examples[:each]]
    return {
        id_: record
        for start in range(0, len(wanted), _ASKED)
        for id_, record in store.get(name, wanted[start : start + _ASKED]).items()
    }


def _as_json(store: VectorStore, name: str, clusters: Sequence[Cluster]) -> list[dict[str, Any]]:
    """Return JSON values of groups, each with its first files."""
    from lookalike.searcher.search import stored_file

    spec, records = store.info(name), _examples(store, name, clusters, _SHOWN)
    rows = []
    for group in clusters:
        payloads = [records[id_].payload for id_ in group.examples if id_ in records]
        files = [(payload["path"], stored_file(spec, payload)) for payload in payloads]
        examples = [{"path": path, "file": None if file is None else str(file)} for path, file in files]
        rows.append({**group.to_json(), "examples": examples})
    return rows


def _print_clusters(store: VectorStore, name: str, clusters: Sequence[Cluster]) -> None:
    """Print a line per group: number, size, what is new, name, and one of its files."""
    from lookalike.encoder.errors import printable
    from lookalike.searcher.search import stored_file

    spec, records = store.info(name), _examples(store, name, clusters[:_SHOWN], 1)
    for group in clusters[:_SHOWN]:
        first = records.get(group.examples[0])
        payload = {"path": ""} if first is None else first.payload
        place = printable(from_here(stored_file(spec, payload), str(payload["path"])))
        new = f"+{group.added}" if group.added else ""
        named = f"{printable(group.name)}  " if group.name else ""
        click.echo(
            f"cluster {group.number:<5} {group.size:>6} images {new:>6}  {named}{place}{which_face(payload)}"
        )


def _log_report(name: str, report: ClusterReport, threshold: float, *, dry_run: bool) -> None:
    if len(report.clusters) > _SHOWN:
        log(f"and {len(report.clusters) - _SHOWN} smaller groups; --json has them all")
    dry = "Dry run, nothing was written: " if dry_run else ""
    log(
        f"{dry}{name}: {report.grouped} of {report.items} images in {len(report.clusters)} groups, "
        f"{report.created} of them new; {report.joined} images joined groups that were there; "
        f"threshold {threshold:g}; {report.seconds:.1f} s"
    )
    if report.damaged:
        log(f"{report.damaged} images left out: damaged vectors; lookalike index --checksum mends them")
