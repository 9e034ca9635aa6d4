"""``lookalike collections`` and ``lookalike facets``: what is stored, copies of it, and checks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, get_args

import click

from lookalike.deploy.cli.completion import complete_collections, complete_fields
from lookalike.deploy.cli.options import (
    Given,
    Group,
    collection_option,
    command,
    crop_option,
    filled_store_option,
    json_option,
    layout_options,
    model_option,
    option,
    store_option,
    where_option,
)
from lookalike.deploy.cli.output import log, print_json, progress_bar, warn, warn_of_store

if TYPE_CHECKING:
    from lookalike.encoder.images import Crop
    from lookalike.indexer.maintenance import VerifyReport
    from lookalike.indexer.store import Filter, IndexState, ShardCopies, StorageConfig, VectorStore


@click.group(cls=Group)
def collections() -> None:
    """List, show, create, copy, verify, rebalance or delete collections."""


@collections.command("list", epilog="Example: lookalike collections list")
@store_option
@json_option("Print a list of objects as JSON on stdout.")
@click.pass_context
def list_(ctx: click.Context, store: str, as_json: bool) -> None:
    """List the collections of a store and their aliases.

    One that is damaged, that does not answer, or that another process holds, is listed with the reason; the
    exit code is then 3.
    """
    from lookalike.encoder.errors import CollectionNotFoundError
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import closed_by, opening_error

    with open_store(store) as opened:
        warn_of_store(opened)
        aliases = opened.aliases()
        rows: list[dict[str, Any]] = []
        for name in opened.list_collections():
            names = [alias for alias, real in aliases.items() if real == name]
            if (error := opening_error(opened, name)) is not None:
                rows.append({"name": name, "aliases": names, closed_by(error): str(error)})
                continue
            with suppress(CollectionNotFoundError):  # it was deleted meanwhile
                row = {"count": _count(opened, name), **opened.info(name).to_json()}
                rows.append({"name": name, **row, "aliases": names})
    if as_json:
        print_json(rows)
    elif rows:
        _print_collections(rows)
    else:
        log(f"no collection in {store}; lookalike index creates one")
    ctx.exit(3 if any("count" not in row for row in rows) else 0)


def _count(store: VectorStore, name: str) -> int:
    """Return the number of items."""
    from lookalike.indexer.store import items_filter

    return store.count(name, where=items_filter(store.info(name)))


def _print_collections(rows: Sequence[dict[str, Any]]) -> None:
    from lookalike.indexer.store import Closed

    for row in rows:
        marks = "".join(f", alias {alias}" for alias in row["aliases"])
        if "count" not in row:
            state = next(each for each in get_args(Closed) if each in row)
            click.echo(f"{row['name']:<24} {state:>9}  {row[state]}{marks}")
            continue
        model = f"{row['model_name']} ({str(row['model_id'])[:12]})"
        click.echo(f"{row['name']:<24} {row['count']:>9}  {model}{marks}")


@collections.command(epilog="Example: lookalike collections show faces")
@click.argument("name", shell_complete=complete_collections)
@store_option
@json_option()
def show(name: str, store: str, as_json: bool) -> None:
    """Show what a collection holds and how it is stored.

    This is its model, roots, size, storage and search index; of a cluster also the copies of each shard that
    are there, and which are dead. NAME may be an alias.
    """
    from lookalike.indexer.open import open_store

    with open_store(store) as opened:
        warn_of_store(opened)
        aliases = opened.aliases()
        real = aliases.get(name, name)
        state, copies = opened.index_state(real), opened.copies(real)
        values: dict[str, Any] = {"name": real, "count": _count(opened, real), **opened.info(real).to_json()}
    values["aliases"] = [alias for alias, target in aliases.items() if target == real]
    if real != name:
        log(f"{name} is an alias of {real}")
    wanted = 1 if state.layout is None else state.layout.replicas
    fewer = sum(len(each.active) < wanted for each in copies)
    if fewer:
        warn(
            f"{fewer} of the {len(copies)} shards of {real} have fewer than {wanted} copies that answer; "
            f"make the others with lookalike collections rebalance {real}"
        )
    if as_json:
        there = {"copies": [each.to_json() for each in copies]} if copies else {}
        print_json(values | state.to_json() | there)
        return
    values["aliases"] = ", ".join(values["aliases"]) or "none"
    for key, value in (values | _state_lines(state) | _copies_lines(copies)).items():
        click.echo(f"{key:<12} {value if not isinstance(value, dict) else ''}".rstrip())
        if isinstance(value, dict):
            for inner, text in value.items():
                click.echo(f"  {inner:<10} {text}")


@collections.command(
    epilog="Example: lookalike collections create faces-2 --model faces --expect 20000000 --store http://localhost:6333"
)
@click.argument("name")
@model_option(name="model_name")
@filled_store_option
@crop_option("Crop of its images, if not the model's own.")
@json_option()
@layout_options
def create(
    name: str, model_name: str, store: str, crop: Crop | None, layout: Given[StorageConfig], as_json: bool
) -> None:
    """Create an empty collection for a model's vectors.

    lookalike index creates a collection too; create it here to choose or check its storage first.
    """
    from lookalike.encoder.bundle import Bundle
    from lookalike.indexer.open import open_store
    from lookalike.indexer.sync import new_spec

    bundle, options = Bundle.open(model_name), layout.build()
    with open_store(store) as opened:
        spec = new_spec(bundle, crop=crop)
        warn_of_store(opened)
        opened.create(name, spec, options)
        created = opened.index_state(name).layout
    record = {} if created is None else created.to_json()
    memory = None
    if created is not None and options.expect:
        memory = created.memory_bytes(options.expect, spec.dimension)
    summary = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in record.items())
    log(f"created {name} for vectors of {spec.dimension} dimensions: {summary}")
    if memory is not None:
        log(f"{options.expect} vectors need {memory / 1e9:.2f} GB of memory, all replicas together")
    if as_json:
        values = {"name": name, "store": store, **spec.to_json()}
        print_json({**values, "layout": record, "memory_bytes": memory})


@collections.command(epilog="Example: lookalike collections switch faces faces-2")
@click.argument("alias")
@click.argument("name", required=False)
@store_option
@option("--remove", is_flag=True, help="Remove the alias; leave NAME out.")
def switch(alias: str, name: str | None, store: str, remove: bool) -> None:
    """Point an alias to a collection.

    Use it to replace a collection without downtime: index into a new collection while the old one answers,
    switch the alias, then delete the old one.
    """
    from lookalike.indexer.open import open_store

    if remove == (name is not None):
        raise click.UsageError("give the NAME of a collection, or --remove without a NAME")
    with open_store(store) as opened:
        before = opened.aliases().get(alias)
        opened.set_alias(alias, name)
        now = opened.aliases().get(alias)
    if now is None:
        log(f"removed alias {alias}; collection {before} stays")
    else:
        log(f"{alias} now points to {now}{'' if before in (None, now) else f' (before: {before})'}")


@collections.command(
    epilog="Example: lookalike collections copy faces faces --to-store http://localhost:6333"
)
@click.argument("source", metavar="SRC", shell_complete=complete_collections)
@click.argument("target", metavar="DST")
@store_option
@option("--to-store", metavar="FOLDER|URL", help="Store of DST.", show_default="the same store")
@json_option()
@layout_options
def copy(
    source: str, target: str, store: str, to_store: str | None, layout: Given[StorageConfig], as_json: bool
) -> None:
    """Copy a collection to another name or store.

    No image is opened. DST is created if it does not exist, and refused if it holds vectors of another model.
    Run it again after an interruption to continue.
    """
    from lookalike.indexer.maintenance import copy_collection
    from lookalike.indexer.open import open_store
    from lookalike.indexer.sync import ignored_options_warning, index_when_large

    options = layout.build()
    with ExitStack() as stack:
        opened = stack.enter_context(open_store(store))
        other = opened if to_store in (None, store) else stack.enter_context(open_store(to_store))
        warning = ignored_options_warning(other, target, options)
        with progress_bar("Copying", unit="items") as bar:
            done = copy_collection(
                opened,
                source,
                other,
                target,
                storage=options,
                on_total=bar.on_total,
                on_progress=bar.on_progress,
            )
        index_when_large(other, target, log=log)
    if warning is not None:
        warn(warning)
    log(
        f"{target}: {done.copied} copied, {done.unchanged} already there, {done.count} items now; "
        f"{done.seconds:.1f} s"
    )
    if as_json:
        print_json({"source": source, "target": target, **done.to_json()})


@collections.command(epilog="Example: lookalike collections verify faces --sample 200")
@click.argument("name", shell_complete=complete_collections)
@store_option
@option("--model", metavar="BUNDLE", help="Bundle folder, if it has moved since indexing.")
@option(
    "--sample",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Number of random images to embed again; 0: none.",
)
@option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the sample.")
@option("--checksum", is_flag=True, help="Compare file contents (SHA-256), not sizes and times.")
@json_option()
@click.pass_context
def verify(
    ctx: click.Context,
    name: str,
    store: str,
    model: str | None,
    sample: int,
    seed: int,
    checksum: bool,
    as_json: bool,
) -> None:
    """Compare a collection with the files on disk and with its model. Changes nothing.

    It lists files that are missing, changed or unreadable, images that are not stored (extra), invalid or
    duplicate vectors, and vectors that the model no longer reproduces (differing). The exit code is 3 if it
    lists any.
    """
    from lookalike.encoder.runtime import Model
    from lookalike.indexer.maintenance import remembered_model, verify
    from lookalike.indexer.open import open_store

    with open_store(store) as opened, progress_bar("Verifying", unit="items") as bar:
        bundle = None
        if sample:
            bundle = remembered_model(opened.info(name), name) if model is None else Model.open(model)
        report = verify(
            opened,
            name,
            model=bundle,
            sample=sample,
            seed=seed,
            checksum=checksum,
            on_total=bar.on_total,
            on_progress=bar.on_progress,
        )
    if as_json:
        print_json({"collection": name, "store": store, **report.to_json()})
    _print_report(name, report, issues=not as_json)
    ctx.exit(3 if report.issues else 0)


@collections.command(epilog="Example: lookalike collections optimize faces")
@click.argument("name", shell_complete=complete_collections)
@store_option
@option(
    "--above",
    type=click.IntRange(min=0),
    default=100_000,
    show_default=True,
    help="Build no index for this many items or fewer: an exact search is as fast.",
)
def optimize(name: str, store: str, above: int) -> None:
    """Rebuild the search index of a large collection.

    lookalike index does this itself once more than 100,000 vectors are not in the index, but not after
    --defer-index. An embedded store needs space for a second copy meanwhile.
    """
    from lookalike.indexer.open import open_store

    with open_store(store) as opened:
        points = opened.count(name)
        if points > above or opened.index_state(name).deferred:
            log(f"{name}: building the search index of {points} vectors")
            opened.build_index(name)
        state = opened.index_state(name)
    log(f"{name}: {_state_lines(state)['index']}")


@collections.command(epilog="Example: lookalike collections rebalance faces --store http://localhost:6333")
@click.argument("name", shell_complete=complete_collections)
@store_option
@option(
    "--replicas",
    type=click.IntRange(min=1),
    metavar="N",
    help="Copies of each shard, at least, from now on.",
    show_default="as many as it was made with",
)
def rebalance(name: str, store: str, replicas: int | None) -> None:
    """Make missing copies of shards in a cluster and spread all evenly.

    Use it after peers have joined, were lost, or a collection was made before all were there. Each shard is
    copied or moved by Qdrant itself, one after the other, while the collection answers. Run it again after an
    interruption to continue.
    """
    from lookalike.indexer.open import open_store

    with open_store(store) as opened:
        warn_of_store(opened)
        steps = opened.rebalance(name, replicas=replicas, log=log)
        copies = opened.copies(name)
    fewest = min((len(each.active) for each in copies), default=0)
    done = f"{steps} steps done" if steps else "nothing to do"
    log(f"{name}: {done}; each of the {len(copies)} shards has {fewest} copies or more that answer")


@collections.command(epilog="Example: lookalike collections delete old --yes")
@click.argument("name", shell_complete=complete_collections)
@store_option
@option("--yes", is_flag=True, help="Delete without asking.")
@click.pass_context
def delete(ctx: click.Context, name: str, store: str, yes: bool) -> None:
    """Delete a collection. The image files stay.

    A collection that an alias points to is not deleted: switch or remove the alias first.
    """
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import check_unaliased

    with open_store(store) as opened:
        check_unaliased(opened.address, name, opened.aliases())
        content = _content(opened, name)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"deleting {name} ({content}) needs --yes without a terminal")
            if not click.confirm(f"delete {name} with {content} from {store}?", err=True):
                warn("Aborted.")
                ctx.exit(1)
        opened.delete_collection(name)
    log(f"deleted {name}: {content}")


@command(epilog="Example: lookalike facets --collection family person")
@click.argument("field", metavar="FIELD", shell_complete=complete_fields)
@collection_option()
@store_option
@where_option()
@option(
    "--most",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Print the N most frequent values.",
)
@json_option("Print all values as a list of JSON objects on stdout.")
def facets(
    field: str, collection: str | None, store: str, where: Filter | None, most: int, as_json: bool
) -> None:
    """Count the values of a metadata field in a collection.

    FIELD is person, path, or a column of --payload or --attributes at indexing.
    """
    from lookalike.encoder.errors import printable
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection, value_counts

    with open_store(store) as opened:
        counts = value_counts(opened, choose_collection(opened, collection), field, where=where)
    if as_json:
        print_json([{"value": value, "count": count} for value, count in counts])
        return
    for value, count in counts[:most]:
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(f"{count:>8}  {printable(text)}")
    if not counts:
        log(f"no image has a field '{printable(field)}'")
    elif len(counts) > most:
        rest = sum(count for _, count in counts[most:])
        log(f"and {len(counts) - most} more values, in {rest} images; --most N prints them")


def _content(store: VectorStore, name: str) -> str:
    """Return how much a collection holds; one that cannot be opened can be deleted too."""
    from lookalike.encoder.errors import CollectionNotFoundError, StoreBusyError, StoreError

    try:
        return f"{_count(store, name)} items"
    except (CollectionNotFoundError, StoreBusyError):
        raise
    except StoreError:
        return "an unknown number of items"


def _state_lines(state: IndexState) -> dict[str, str]:
    """Return the search index, storage and disk use for people, by name."""
    lines = {"index": f"HNSW over {state.indexed} vectors" if state.indexed else "none, search is exact"}
    if state.deferred:
        lines["index"] += "; deferred, lookalike collections optimize builds it"
    if state.layout is not None:
        lines |= {key.replace("_", " "): str(value) for key, value in state.layout.to_json().items()}
    if state.disk_bytes is not None:
        lines["disk"] = f"{state.disk_bytes / 1e6:.1f} MB"
    return lines


def _copies_lines(copies: Sequence[ShardCopies]) -> dict[str, Any]:
    """Return the copies of each shard for people: on which peers, and the state where it is not active."""
    if not copies:
        return {}
    lines = {
        f"shard {each.shard}": f"{len(each.active)} on "
        + ", ".join(
            f"{peer}{'' if state == 'Active' else f' ({state.lower()})'}"
            for peer, state in sorted(each.states.items())
        )
        for each in copies
    }
    return {"copies": lines}


def _print_report(name: str, report: VerifyReport, *, issues: bool) -> None:
    from lookalike.encoder.errors import printable

    if issues:
        for issue in report.issues:
            click.echo(f"{issue.kind:<10} {printable(issue.path)}: {printable(issue.reason)}")
    counts = ", ".join(f"{number} {kind}" for kind, number in report.counts.items())
    without = f"; {report.without_file} without a file" if report.without_file else ""
    log(f"{name}: {report.items} items, {report.sampled} embedded again; {counts}{without}")
