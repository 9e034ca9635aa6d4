"""``lookalike search``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.completion import complete_fields
from lookalike.deploy.cli.options import (
    LocalPath,
    Provider,
    collection_option,
    command,
    crop_option,
    json_option,
    max_pixels_option,
    open_option,
    option,
    provider_option,
    store_option,
    where_option,
)
from lookalike.deploy.cli.output import exit_code, log, log_failed, save_sheet, warn
from lookalike.deploy.cli.similar.preview import TERMINALS, sequences
from lookalike.deploy.cli.similar.preview import protocol as picture_protocol
from lookalike.deploy.cli.similar.printed import log_missing, output_form, print_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lookalike.encoder.images import Crop
    from lookalike.indexer.store import Filter
    from lookalike.searcher.search import QueryDenoiser, QueryFaces, QueryResult, Searcher, TextQuery

_MAX_NAME: Final = 32
_FILE: Final = LocalPath()
_FILE_OR_TEXT: Final = LocalPath(path_type=str)
_QUERY, _RESULTS, _OUTPUT = "Query", "Results", "Output"


@command(epilog="Example: lookalike search me.jpg --collection family --sheet hits.png")
@click.argument("images", nargs=-1, metavar="IMAGE|TEXT...", type=_FILE_OR_TEXT)
@collection_option()
@store_option
@option("--model", metavar="BUNDLE", help="Bundle folder, if it has moved since indexing.")
@provider_option
@crop_option("Crop of the query images, if not the model's own.", group=_QUERY)
@option(
    "--faces",
    is_flag=True,
    group=_QUERY,
    help="Search for the most prominent face of each query; the default where the collection holds faces.",
)
@option(
    "--face",
    type=click.IntRange(min=1),
    metavar="N",
    group=_QUERY,
    help="Search for the Nth face from the left instead.",
)
@option("--all-faces", is_flag=True, group=_QUERY, help="Search for each face of the queries.")
@option(
    "--add",
    "added",
    multiple=True,
    metavar="NAME=STRENGTH",
    group=_QUERY,
    help="Search for the same face with more of an attribute, such as Smiling=2; repeatable.",
)
@option(
    "--like",
    "liked",
    multiple=True,
    metavar="IMAGE|TEXT",
    type=_FILE_OR_TEXT,
    group=_QUERY,
    help="Combine this image with all others into one query; repeatable.",
)
@option(
    "--unlike",
    "unliked",
    multiple=True,
    metavar="IMAGE|TEXT",
    type=_FILE_OR_TEXT,
    group=_QUERY,
    help="Move the combined query away from this image; repeatable.",
)
@max_pixels_option(group=_QUERY)
@option("--denoise", is_flag=True, group=_QUERY, help="Denoise the queries first, where they are noisy.")
@option(
    "--denoise-model",
    default="denoise",
    show_default=True,
    metavar="BUNDLE",
    group=_QUERY,
    help="Denoiser: bundle folder or name of a shipped model.",
)
@option(
    "-n",
    "--count",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    metavar="N",
    group=_RESULTS,
    help="Maximum number of results per query.",
)
@where_option(group=_RESULTS)
@option(
    "--group-by",
    metavar="FIELD",
    group=_RESULTS,
    shell_complete=complete_fields,
    help="Keep only the best result per value, as of person.",
)
@option(
    "--fold-duplicates",
    is_flag=True,
    group=_RESULTS,
    help="Of results that are copies of one another, keep only the best.",
)
@option("--exclude-self", is_flag=True, group=_RESULTS, help="Leave out the query's own file.")
@option(
    "--prior",
    type=float,
    metavar="P",
    group=_RESULTS,
    help="Probability that the query's person is in the collection at all, before looking.",
    show_default="0.5",
)
@option(
    "--fmr",
    type=float,
    metavar="RATE",
    group=_RESULTS,
    help="False match rate: the share of pairs of different people that count as a match, such as 0.001.",
    show_default="no threshold",
)
@option("--sheet", type=_FILE, group=_OUTPUT, help="Save queries and results as an image, such as out.png.")
@open_option(group=_OUTPUT)
@option("--preview", is_flag=True, group=_OUTPUT, help=f"Show the pictures on the terminal ({TERMINALS}).")
@json_option("Print a list on stdout, one object per query.", group=_OUTPUT)
@option("--csv", "as_csv", is_flag=True, group=_OUTPUT, help="Print a table as CSV on stdout.")
@option("--paths", "as_paths", is_flag=True, group=_OUTPUT, help="Print only the files, one a line.")
@option(
    "-0",
    "--null",
    is_flag=True,
    group=_OUTPUT,
    help="End each path with a null byte, for xargs -0; implies --paths.",
)
@click.pass_context
def search(
    ctx: click.Context,
    images: tuple[str, ...],
    collection: str | None,
    store: str,
    count: int,
    model: str | None,
    crop: Crop | None,
    faces: bool,
    face: int | None,
    all_faces: bool,
    where: Filter | None,
    added: tuple[str, ...],
    liked: tuple[str, ...],
    unliked: tuple[str, ...],
    group_by: str | None,
    fold_duplicates: bool,
    exclude_self: bool,
    prior: float | None,
    fmr: float | None,
    max_pixels: int | None,
    denoise: bool,
    denoise_model: str,
    sheet: Path | None,
    preview: bool,
    as_json: bool,
    as_csv: bool,
    as_paths: bool,
    null: bool,
    provider: Provider,
) -> None:
    """Find the images most similar to an image. Similarity does not prove that two images show one person.

    With a calibrated model (see lookalike calibrate), a result has a probability that it shows the query's
    person. It is a match if that is over 50 %, unless the query is unlike what the model was trained on; else
    it is possible. The person is taken to be in the collection or not with even odds; set --prior if you know
    more. --fmr asks for a score above a threshold, too.

    With --like or --unlike, all IMAGEs form one query: their mean, moved away from the --unlike images.

    Where the collection's model takes text (lookalike models add clip-vit-b-32), a query that is no file is
    TEXT: lookalike search "two parrots on a branch".
    """
    from lookalike.encoder.errors import printable
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection
    from lookalike.searcher.figures import MAX_ROWS, results_sheet
    from lookalike.searcher.generation import parse_strengths
    from lookalike.searcher.search import Searcher, SearchParams

    if not images and not liked:
        raise click.UsageError(
            "give an IMAGE or --like" + (": --unlike needs at least one" if unliked else "")
        )
    form = output_form(as_json=as_json, as_csv=as_csv, as_paths=as_paths, null=null)
    if preview and form != "table":
        raise click.UsageError(
            "--preview does not work with --json, --csv, --paths and --null: leave one out"
        )
    combined = bool(liked or unliked)
    if combined and (prior is not None or fmr is not None):
        raise click.UsageError(
            "--prior and --fmr do not work with --like and --unlike: they are for one image"
        )
    wanted = _faces(faces, face, all_faces, crop=crop, combined=combined)
    strengths = parse_strengths(added) if added else {}
    params = SearchParams(
        k=count, where=where, exclude_self=exclude_self, group_by=group_by, fold_copies=fold_duplicates
    )
    with open_store(store) as opened:
        collection = choose_collection(opened, collection)
        searcher = Searcher.open(opened, collection, model=model, provider=provider, max_pixels=max_pixels)
        denoiser = _open_denoiser(denoise_model, provider) if denoise else None
        queries = _queries(images, searcher)
        if combined:
            answers = [
                searcher.similar_to_examples(
                    [*queries, *_queries(liked, searcher)],
                    _queries(unliked, searcher),
                    params=params,
                    crop=crop,
                    faces=wanted,
                    add=strengths,
                    denoiser=denoiser,
                )
            ]
        else:
            found = searcher.similar(
                queries,
                k=count,
                exclude_self=exclude_self,
                where=where,
                group_by=group_by,
                crop=crop,
                faces=wanted,
                prior=prior,
                fmr=fmr,
                add=strengths,
                denoiser=denoiser,
                fold_copies=fold_duplicates,
            )
            answers = list(found)
        good = [answer for answer in answers if answer.error is None]
        saved = shown = None
        if (sheet is not None or (preview and picture_protocol())) and good:
            shown = results_sheet(searcher, good, crop=crop, add=strengths)
            saved = None if sheet is None else save_sheet(sheet, shown)
            log_missing(searcher.spec, collection, [hit.payload for each in good for hit in each.results])
    print_results(form, answers, searcher.file_of)
    if preview:
        _preview(shown)
    _log_notes(good, matches=not as_json)
    log_failed(answer.error for answer in answers if answer.error is not None)
    if not searcher.model.takes_text and any(map(_is_text, (*images, *liked, *unliked))):
        name = printable(searcher.model.bundle.name)
        log(f"model {name} takes no words; index with one that does: lookalike models add clip-vit-b-32")
    if saved is not None:
        log(saved + (f", the first {MAX_ROWS} of {len(good)} queries" if len(good) > MAX_ROWS else ""))
    if searcher.size == 0:
        warn(f"collection {collection} is empty; fill it with lookalike index")
    ctx.exit(exit_code(len(answers) - len(good), len(answers)))


def _preview(pixels: NDArray[np.uint8] | None) -> None:
    """Show a picture on the terminal, or say that it cannot be shown."""
    by = picture_protocol()
    if by is None:
        warn(
            f"--preview shows pictures on the terminals {TERMINALS} alone; save them: --sheet hits.png --open"
        )
    elif pixels is not None:
        click.echo(sequences(pixels, by), nl=False, color=True)


def _is_text(word: str) -> bool:
    """Whether a query can only be text: it is no file, nor does it look like the name of one."""
    from lookalike.encoder.images import IMAGE_SUFFIXES

    return not os.path.lexists(word) and Path(word).suffix.lower() not in IMAGE_SUFFIXES  # any text


def _queries(words: Sequence[str], searcher: Searcher) -> list[Path | TextQuery]:
    """Return files and, where the model takes it, text."""
    from lookalike.searcher.search import TextQuery

    takes_text = searcher.model.takes_text
    return [TextQuery(word) if takes_text and _is_text(word) else Path(word) for word in words]


def _faces(
    faces: bool, number: int | None, every: bool, *, crop: Crop | None, combined: bool
) -> QueryFaces | None:
    """Return which faces of the queries are compared; None: as the collection is."""
    from lookalike.searcher.search import QueryFaces

    if number is not None and every:
        raise click.UsageError("--face and --all-faces exclude each other")
    if not (faces or number is not None or every):
        return None
    if crop is not None:
        raise click.UsageError("--crop does not work with --faces, --face and --all-faces: leave one out")
    if combined and every:
        raise click.UsageError("--all-faces does not work with --like and --unlike, which form one query")
    return QueryFaces(number=number, every=every)


def _open_denoiser(name: str, provider: Provider) -> QueryDenoiser:
    from lookalike.encoder.runtime import Denoiser
    from lookalike.searcher.search import QueryDenoiser

    return QueryDenoiser(Denoiser.open(name, provider=provider))


def _log_notes(answers: Sequence[QueryResult], *, matches: bool) -> None:
    """Print what was done to a query, and warnings about its results, on stderr."""
    from lookalike.encoder.errors import printable

    for answer in answers:
        name = printable(answer.query)
        if answer.denoise_info is not None:
            log(f"{name}: {answer.denoise_info.summary()}")
        if answer.warning is not None:
            warn(f"{name}: {answer.warning}")
        if matches and answer.match is False:
            copies = any(result.same_file for result in answer.results)
            log(f"{name}: no good match" + " but the file itself" * copies)
