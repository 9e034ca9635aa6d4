"""``lookalike embed``, and ``lookalike index`` of what it wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from lookalike.deploy.cli.options import Selection, selecting

if TYPE_CHECKING:
    from lookalike.indexer.store.layout import StorageConfig

__all__ = ["embed", "index_latents"]

_OF_PICTURES: Final = {
    *("files_from", "include", "exclude", "hidden", "person_from"),
    *("payload", "attributes", "checksum", "dry_run", "report"),
}
"""Options of ``lookalike index`` that would do nothing to a file of latents, silently."""


@click.command(epilog="Example: lookalike embed photos/ --model faces --out latents.parquet")
@click.option(
    "--model", "model_name", default="faces", show_default=True, help="Bundle folder or shipped model."
)
@click.option(
    "--out", required=True, metavar="FILE.parquet", type=click.Path(path_type=Path), help="The file to write."
)
@click.option("--overwrite", is_flag=True, help="Bring a file that is there up to date.")
@click.option(
    "--crop", metavar="full|centre:F|X,Y,W,H", help="How these pictures are framed; default: as the model's."
)
@selecting
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
def embed(
    ctx: click.Context,
    chosen: Selection,
    model_name: str,
    out: Path,
    overwrite: bool,
    crop: str | None,
    max_pixels: int,
    provider: str,
    as_json: bool,
) -> None:
    """Write the latents of pictures into a Parquet file.

    lookalike index puts the file into any collection of the same model without opening a picture; pandas,
    polars and DuckDB read it too. A run that was stopped goes on where it was. A file that is there and up to
    date is left alone; --overwrite brings one that is not up to date, and without it such a file is refused.
    Pictures that cannot be read are named and stop nothing; the exit code is then 3.
    """
    from lookalike.deploy.cli.bar import progress_bar
    from lookalike.encoder.images.discover import IMAGE_SUFFIXES
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.encoder.runtime.model import Model
    from lookalike.indexer.parquet.export import export_latents as run

    sources = chosen.source_list()
    with ExitStack() as stack:
        model = Model.open(model_name, provider=provider, threads=1)  # type: ignore[arg-type]  # click checked it
        framing = None if crop is None else Crop.parse(crop)
        bar = stack.enter_context(progress_bar())
        report = run(
            model,
            sources.open({}),
            out,
            crop=framing,
            max_pixels=max_pixels,
            processes=True,
            overwrite=overwrite,
            on_total=bar.on_total,
            on_progress=bar.on_progress,
        )
    for path, reason in report.failed:
        click.echo(f"failed: {reason if path in reason else f'{path}: {reason}'}", err=True)
    if report.unchanged:
        done = "unchanged"
    else:
        done = f"{report.embedded} embedded, {report.kept} kept, {report.dropped} dropped"
    speed = f", {report.images_per_second:.0f} images/s" if report.embedded else ""
    click.echo(
        f"{out}: {report.rows} rows; {done}, {len(report.failed)} failed; "
        f"{report.seconds:.1f} s on {model.provider}{speed}",
        err=True,
    )
    if report.rows == 0 and not report.failed:
        click.echo(f"no pictures there; looked for {', '.join(sorted(IMAGE_SUFFIXES))}", err=True)
    if as_json:
        told = {"out": str(out), "model_id": model.model_id, "provider": model.provider}
        click.echo(json.dumps({**told, **report.to_json()}))
    ctx.exit(3 if report.failed else 0)


def index_latents(ctx: click.Context, layout: StorageConfig) -> None:
    """Do what ``lookalike index`` was asked, when its sources are files of latents."""
    from tqdm import tqdm

    from lookalike.encoder.bundle.bundle import Bundle
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.indexer.open import open_store
    from lookalike.indexer.parquet.load import load_latents

    asked = ctx.params
    files = _check(ctx, asked["sources"])
    is_default = ctx.get_parameter_source("model_name") is ParameterSource.DEFAULT
    with ExitStack() as stack:
        opened = stack.enter_context(open_store(asked["store"]))
        bar = stack.enter_context(tqdm(unit="row", disable=None, leave=False))
        report = load_latents(
            opened,
            asked["collection"],
            files,
            root_name=asked["root_name"],
            bundle=None if is_default else Bundle.open(asked["model_name"]),
            crop=None if asked["crop"] is None else Crop.parse(asked["crop"]),
            storage=layout,
            on_total=bar.reset,
            on_progress=bar.update,
            log=partial(bar.write, file=sys.stderr),
        )
    click.echo(
        f"{report.collection}: {report.added} added, {report.changed} changed, "
        f"{report.unchanged} unchanged; {report.seconds:.1f} s",
        err=True,
    )
    if asked["as_json"]:
        click.echo(json.dumps({"store": asked["store"], **report.to_json()}))


def _check(ctx: click.Context, sources: Sequence[str]) -> list[Path]:
    """Refuse what cannot be said of a file of latents."""
    from lookalike.encoder.errors import InvalidArgumentError
    from lookalike.encoder.text import printable
    from lookalike.indexer.parquet.file import is_latents

    other = [source for source in sources if not is_latents(source)]
    if other:
        raise InvalidArgumentError(
            "pictures and files of latents are indexed in two runs; "
            f"'{printable(other[0])}' is no file of latents, name it in another"
        )
    if ctx.params["prune"]:
        raise InvalidArgumentError(
            "--prune removes what has left a folder, which a file of latents does not say; index the folder"
        )
    for option in ctx.command.params:
        if option.name in _OF_PICTURES and ctx.params[option.name]:
            raise InvalidArgumentError(
                f"{option.opts[-1]} is of pictures, a file of latents is taken whole; leave it out, "
                "or index the pictures"
            )
    return [Path(source) for source in sources]
