"""``lookalike facets``."""

from __future__ import annotations

import json

import click

from lookalike.deploy.cli.index import store_option

__all__ = ["facets", "where_option"]

where_option = click.option(
    "--where",
    metavar="CONDITIONS",
    help="Only pictures that pass: person=NAME, person!=NAME, Smiling>0, path~TEXT; commas between them.",
)


@click.command(epilog="Example: lookalike facets --collection family person")
@click.argument("field", metavar="FIELD")
@click.option("--collection", required=True, metavar="NAME", help="Whose pictures.")
@store_option
@where_option
@click.option(
    "--most", type=click.IntRange(min=1), default=20, show_default=True, help="Values that are told."
)
@click.option("--json", "as_json", is_flag=True, help="All values, as a list of objects on stdout.")
def facets(field: str, collection: str, store: str, where: str | None, most: int, as_json: bool) -> None:
    """Count what the pictures of a collection say of themselves.

    FIELD is person, path, or what --payload or --attributes told when indexing.
    """
    from lookalike.encoder.text import printable
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store.facets import value_counts
    from lookalike.indexer.store.where import parse_where

    condition = None if where is None else parse_where(where)
    with open_store(store) as opened:
        found = value_counts(opened, collection, field, where=condition)
    if as_json:
        click.echo(json.dumps([{"value": value, "count": count} for value, count in found]))
        return
    for value, count in found[:most]:
        click.echo(f"{count:>8}  {printable(_told(value))}")
    if not found:
        click.echo(f"no picture says anything of {printable(field)}", err=True)
    elif len(found) > most:
        left = sum(count for _, count in found[most:])
        click.echo(f"and {len(found) - most} more values, of {left} pictures; --most tells them", err=True)


def _told(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)
