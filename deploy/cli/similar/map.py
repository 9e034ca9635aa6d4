"""``lookalike map``: the images of a collection on a plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.options import (
    OUTPUT_FILE,
    collection_option,
    command,
    json_option,
    option,
    store_option,
    where_option,
)
from lookalike.deploy.cli.output import log, print_json, progress_bar, save_sheet
from lookalike.deploy.cli.similar.printed import log_missing

if TYPE_CHECKING:
    from lookalike.indexer.store import Filter
    from lookalike.searcher.maps import Method

_PAGES: Final = (".html", ".htm")
_PLACED: Final = {"umap": "by their neighbors (UMAP)", "pca": "by two principal components"}


@command(name="map", epilog="Example: lookalike map --collection family --out map.html")
@option(
    "--out",
    required=True,
    type=OUTPUT_FILE,
    metavar="FILE",
    help="Image, such as map.png, or page with all images in it, map.html.",
)
@collection_option()
@store_option
@option(
    "--method",
    type=click.Choice(["umap", "pca"]),
    show_default="umap where the extra [map] is installed, else pca",
    help="How places are found: by neighbors (UMAP), or by the two directions of greatest variance.",
)
@option(
    "--count",
    type=click.IntRange(min=3, max=20_000),
    default=2000,
    show_default=True,
    help="Most images; of more, so many are chosen at random.",
)
@option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, metavar="N",
        help="Seed of the choice and of the map.")  # fmt: skip
@option("--model", metavar="BUNDLE", help="Bundle folder, if it has moved since indexing.")
@where_option()
@json_option("Print the place of each image as a list of JSON objects on stdout.")
def map_(
    out: Path,
    collection: str | None,
    store: str,
    method: Method | None,
    count: int,
    seed: int,
    model: str | None,
    where: Filter | None,
    as_json: bool,
) -> None:
    """Draw a map of a collection: similar images lie near each other.

    The page needs no network and no other file; drag to move, turn the wheel to zoom. The image shows some of
    the pictures where they are close, and dots for the others.
    """
    from lookalike.encoder.errors import printable
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection
    from lookalike.searcher.maps import default_method, draw_map, make_map, thumbnails, write_page
    from lookalike.searcher.search import Searcher

    with open_store(store) as opened:
        name = choose_collection(opened, collection)
        searcher = Searcher.open(opened, name, model=model)
        found = make_map(opened, name, method=method, count=count, seed=seed, where=where)
        with progress_bar("Drawing", total=len(found.ids)) as bar:
            images = thumbnails(searcher, found, on_progress=bar.on_progress)
        if out.suffix.lower() in _PAGES:
            write_page(out, name, found, images)
            saved = f"page written: {printable(str(out))}"
        else:
            canvas, dots = draw_map(found, images)
            saved = save_sheet(out, canvas)
            saved += f", {dots} of {len(images)} images as dots: map.html shows all" if dots else ""
        if as_json:
            files = [searcher.file_of(payload) for payload in found.payloads]
            rows = zip(found.ids, found.payloads, files, found.places.tolist(), strict=True)
            print_json(
                [
                    {
                        "id": id_,
                        "path": payload["path"],
                        "file": None if file is None else str(file),
                        "x": x,
                        "y": y,
                    }
                    for id_, payload, file, (x, y) in rows
                ]
            )
        log_missing(searcher.spec, name, found.payloads)
    few = (
        f", {len(found.ids)} of {found.total} images chosen at random" if len(found.ids) < found.total else ""
    )
    log(f"{name}: {len(found.ids)} images placed {_PLACED[found.method]}{few}")
    if method is None and default_method() == "pca":
        log("they show coarse differences only; pip install 'lookalike[map]' for a map by neighbors (UMAP)")
    log(saved)
