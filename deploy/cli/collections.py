"""``lookalike collections``: what is stored, whether it is true, and copies of it."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lookalike.deploy.cli.index import store_option
from lookalike.deploy.cli.layout_commands import laying_out

if TYPE_CHECKING:
    from lookalike.indexer.maintenance.verify import VerifyReport
    from lookalike.indexer.store.base import IndexState, VectorStore
    from lookalike.indexer.store.layout import StorageConfig

__all__ = ["collections"]

_as_json = click.option("--json", "as_json", is_flag=True, help="An object on stdout.")


@click.group()
def collections() -> None:
    """List, show, make, copy, switch or delete collections."""


@collections.command("list", epilog="Example: lookalike collections list")
@store_option
@click.option("--json", "as_json", is_flag=True, help="A list of objects on stdout.")
def list_(store: str, as_json: bool) -> None:
    """List the collections of a store, and their aliases."""
    from lookalike.indexer.open import open_store

    with open_store(store) as opened:
        aliases = opened.aliases()
        rows = [
            {
                "name": name,
                "count": opened.count(name),
                **opened.info(name).to_json(),
                "aliases": [alias for alias, real in aliases.items() if real == name],
            }
            for name in opened.list_collections()
        ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo(f"no collection in {store}; lookalike index makes one", err=True)
    for row in rows:
        also = "".join(f", also called {alias}" for alias in row["aliases"])
        model = f"{row['model_name']} ({str(row['model_id'])[:12]})"
        click.echo(f"{row['name']:<24} {row['count']:>9}  {model}{also}")


@collections.command(epilog="Example: lookalike collections show faces")
@click.argument("name")
@store_option
@_as_json
def show(name: str, store: str, as_json: bool) -> None:
    """Show what a collection remembers about itself, what it takes and how it lies and is searched.

    Of an alias, that of the collection that it stands for.
    """
    from lookalike.indexer.open import open_store

    with open_store(store) as opened:
        aliases = opened.aliases()
        real = aliases.get(name, name)
        state = opened.index_state(real)
        values: dict[str, Any] = {"name": real, "count": state.points, **opened.info(real).to_json()}
    values["aliases"] = [alias for alias, stands_for in aliases.items() if stands_for == real]
    if real != name:
        click.echo(f"{name} is an alias of {real}", err=True)
    if as_json:
        click.echo(json.dumps(values | state.to_json()))
        return
    values["aliases"] = ", ".join(values["aliases"]) or "none"
    for key, value in (values | _in_words(state)).items():
        click.echo(f"{key:<12} {value if not isinstance(value, dict) else ''}".rstrip())
        if isinstance(value, dict):
            for inner, text in value.items():
                click.echo(f"  {inner:<10} {text}")


@collections.command(
    epilog="Example: lookalike collections copy faces faces --to-store http://localhost:6333"
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@store_option
@click.option("--to-store", metavar="FOLDER|URL", help="Where DST is; default: the same store.")
@laying_out
@_as_json
def copy(
    source: str, target: str, store: str, to_store: str | None, layout: StorageConfig, as_json: bool
) -> None:
    """Copy a collection to another name or store; vectors stay as they are, no picture is opened.

    DST is made when it is not there, and refused when another model made it. Killed on the way and run again,
    it goes on.
    """
    from tqdm import tqdm

    from lookalike.indexer.maintenance.copy import copy_collection
    from lookalike.indexer.open import open_store
    from lookalike.indexer.sync.collection import ignored_options_warning, index_when_large

    with ExitStack() as stack:
        opened = stack.enter_context(open_store(store))
        other = opened if to_store in (None, store) else stack.enter_context(open_store(to_store))
        in_vain = ignored_options_warning(other, target, layout)
        with tqdm(unit="item", disable=None, leave=False) as bar:
            done = copy_collection(
                opened,
                source,
                other,
                target,
                storage=layout,
                on_total=bar.reset,
                on_progress=bar.update,
            )
        index_when_large(other, target, log=partial(click.echo, err=True))
    if in_vain is not None:
        click.echo(in_vain, err=True)
    click.echo(
        f"{target}: {done.copied} copied, {done.unchanged} there already, {done.count} items now; "
        f"{done.seconds:.1f} s",
        err=True,
    )
    if as_json:
        click.echo(json.dumps({"source": source, "target": target, **done.to_json()}))


@collections.command(epilog="Example: lookalike collections verify faces --sample 200")
@click.argument("name")
@store_option
@click.option("--model", metavar="BUNDLE", help="Bundle folder, if not where the collection remembers it.")
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Pictures to embed again, drawn at random; 0: none.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draw.")
@click.option("--checksum", is_flag=True, help="Read every file and compare its content, not size and time.")
@_as_json
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
    """Compare a collection with the files on disk and with its model. Nothing is changed.

    Named are items whose file is missing, changed or unreadable, pictures under its roots that are not
    stored (extra), vectors that cannot be, items stored twice, and pictures of which the model makes another
    vector now (differing). The exit code is 3 when there are any.
    """
    from tqdm import tqdm

    from lookalike.encoder.runtime.model import Model
    from lookalike.indexer.maintenance.verify import remembered_model, verify
    from lookalike.indexer.open import open_store

    with open_store(store) as opened, tqdm(unit="item", disable=None, leave=False) as bar:
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
            on_total=bar.reset,
            on_progress=bar.update,
        )
    if as_json:
        click.echo(json.dumps({"collection": name, "store": store, **report.to_json()}))
    _print_audit(name, report, findings=not as_json)
    ctx.exit(3 if report.issues else 0)


@collections.command(epilog="Example: lookalike collections optimize faces")
@click.argument("name")
@store_option
@click.option(
    "--above",
    type=click.IntRange(min=0),
    default=100_000,
    show_default=True,
    help="With no more items than this, every search compares them all, which is as fast.",
)
def optimize(name: str, store: str, above: int) -> None:
    """Build the search index of a large collection anew, with all that was added, changed or deleted.

    lookalike index does it by itself once more than 100,000 vectors are in none. An embedded store takes
    room for a second copy meanwhile.
    """
    from lookalike.indexer.open import open_store

    with open_store(store) as opened:
        points = opened.count(name)
        if points > above:
            click.echo(f"{name}: building the search index of {points} vectors", err=True)
            opened.build_index(name)
        state = opened.index_state(name)
    click.echo(f"{name}: {_in_words(state)['index']}", err=True)


@collections.command(epilog="Example: lookalike collections delete old --yes")
@click.argument("name")
@store_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, store: str, yes: bool) -> None:
    """Delete a collection and everything in it. The pictures themselves are not touched.

    One that an alias stands for is not deleted: lookalike collections switch.
    """
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store.aliases import check_unaliased

    with open_store(store) as opened:
        check_unaliased(opened.address, name, opened.aliases())
        held = _held(opened, name)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"deleting {name} ({held}) needs --yes where nobody can be asked")
            click.confirm(f"delete {name} with {held} from {store}?", abort=True, err=True)
        opened.delete_collection(name)
    click.echo(f"deleted {name}: {held}", err=True)


def _held(store: VectorStore, name: str) -> str:
    """Return how much a collection holds, for people; one that cannot be opened can be deleted too."""
    from lookalike.encoder.errors import (
        CollectionNotFoundError,
        StoreBusyError,
        StoreError,
        StoreUnreachableError,
    )

    try:
        return f"{store.count(name)} items"
    except (CollectionNotFoundError, StoreBusyError, StoreUnreachableError):
        raise
    except StoreError:
        return "items that cannot be counted"


def _in_words(state: IndexState) -> dict[str, str]:
    """Return how it is searched and what it takes, for people."""
    index = f"HNSW over {state.indexed} vectors" if state.indexed else "none, search is exact"
    words = {"index": index}
    if state.layout is not None:
        words |= {key.replace("_", " "): str(value) for key, value in state.layout.to_json().items()}
    if state.disk_bytes is not None:
        words["disk"] = f"{state.disk_bytes / 1e6:.1f} MB"
    return words


def _print_audit(name: str, report: VerifyReport, *, findings: bool) -> None:
    from lookalike.encoder.text import printable

    if findings:
        for finding in report.issues:
            click.echo(f"{finding.kind:<10} {printable(finding.path)}: {printable(finding.reason)}")
    counts = ", ".join(f"{number} {kind}" for kind, number in report.counts.items())
    outside = f"; {report.without_file} name no file" if report.without_file else ""
    click.echo(f"{name}: {report.items} items, {report.sampled} embedded again; {counts}{outside}", err=True)
