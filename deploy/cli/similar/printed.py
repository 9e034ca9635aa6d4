"""How results are printed: as a table, CSV, JSON or paths."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from lookalike.deploy.cli.output import bold, link, print_json, print_path, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lookalike.indexer.store import CollectionSpec, Payload
    from lookalike.searcher.search import QueryResult

    FileOf = Callable[[Payload], Path | None]
    """Where a stored item's image lies; None where that is not known."""

Form = Literal["table", "json", "csv", "lines", "null"]
"""How results are printed; the last two: paths, each on a line or with a null byte behind it."""

_MAX_NAME: Final = 32


def output_form(*, as_json: bool, as_paths: bool, null: bool, as_csv: bool = False) -> Form:
    """Return what ``--json``, ``--csv``, ``--paths`` and ``--null`` ask for.

    Raises:
        UsageError: they ask for several things.
    """
    if as_json + as_csv + (as_paths or null) > 1:
        raise click.UsageError("--json, --paths and --csv each print on stdout in their own form: choose one")
    return "json" if as_json else "csv" if as_csv else "null" if null else "lines" if as_paths else "table"


def print_results(form: Form, answers: Sequence[QueryResult], file_of: FileOf) -> None:
    """Print the results of queries on stdout; queries that failed are in JSON alone."""
    good = [answer for answer in answers if answer.error is None]
    if form == "json":
        print_json([_as_json(answer, file_of) for answer in answers])
    elif form == "csv":
        _print_csv(good, file_of)
    elif form == "table":
        _print_table(good, file_of)
    else:
        print_files([file_of(result.payload) for answer in good for result in answer.results], form)


def _print_table(answers: Sequence[QueryResult], file_of: FileOf) -> None:
    """Print each query's file, then a line per result: rank, score, probability, verdict, name and file."""
    from lookalike.encoder.errors import printable
    from lookalike.searcher.search import format_probability

    for number, answer in enumerate(answers):
        which = "" if answer.face is None or answer.face.count == 1 else f"  {answer.face.summary()}"
        click.echo(
            f"{chr(10) if number else ''}{bold(printable(answer.query))}{which}  ({answer.took_ms:.1f} ms)"
        )
        people = [printable(result.name or "") for result in answer.results]
        width = min(max(map(len, people), default=0), _MAX_NAME)
        judged = any(result.verdict is not None for result in answer.results)
        for person, result in zip(people, answer.results, strict=True):
            short = person if len(person) <= width else f"{person[: width - 1]}…"
            name = f"{short:<{width}}  " if width else ""
            words = [f"score {result.score:6.3f}"]
            if result.probability is not None:
                words.append(f"probability {format_probability(result.probability):>5}")
            if judged:
                words.append(_colored(f"{result.verdict or '':<9}"))
            file = file_of(result.payload)
            place = link(printable(from_here(file, result.path)), file)
            click.echo(f"{result.rank:>4}  {'  '.join(words)}  {name}{place}{which_face(result.payload)}")


def _colored(verdict: str) -> str:
    """Return a verdict as a terminal shows it: what matches is green."""
    return verdict if verdict.startswith("possible") else click.style(verdict, fg="green")


def _as_json(answer: QueryResult, file_of: FileOf) -> dict[str, Any]:
    """Return JSON values of a query's results, each with the absolute path of its file."""
    values = answer.to_json()
    for row, result in zip(values["results"], answer.results, strict=True):
        file = file_of(result.payload)
        row["file"] = None if file is None else str(file)
    return values


def _print_csv(answers: Iterable[QueryResult], file_of: FileOf) -> None:
    """Print a header and a line per result: query, rank, score, probability, verdict, person, path, file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "rank", "score", "probability", "verdict", "person", "path", "file"])
    for answer in answers:
        for result in answer.results:
            probability = "" if result.probability is None else f"{result.probability:.4g}"
            words = [result.verdict or "", result.person or "", result.path, file_of(result.payload) or ""]
            writer.writerow([answer.query, result.rank, f"{result.score:.6f}", probability, *words])
    click.echo(text.getvalue().encode("utf-8", "surrogateescape"), nl=False)


def print_files(files: Sequence[Path | None], form: Form) -> None:
    """Print the files that are there, each once, and say how many are not; None: its place is not known."""
    there = [file for file in files if file is not None and file.is_file()]
    for file in dict.fromkeys(there):
        print_path(file, end="\0" if form == "null" else "\n")
    if missing := len(files) - len(there):
        warn(f"{missing} files left out: they lie in archives, or are not where they were indexed")


def log_missing(spec: CollectionSpec, name: str, payloads: Iterable[Payload]) -> None:
    """Say on stderr how many pictures are not where they were indexed, and how to name the new place."""
    from lookalike.encoder.errors import printable
    from lookalike.searcher.search import is_found, stored_file

    shown = list(payloads)
    missing = [payload for payload in shown if not is_found(stored_file(spec, payload))]
    if not missing:
        return
    payload = missing[0]
    root, file = str(payload.get("root")), stored_file(spec, payload)
    warn(
        f"{len(missing)} of {len(shown)} pictures are not where they were indexed, such as "
        f"{printable(str(file or payload['path']))}; where their folder is now, says: "
        f"lookalike index FOLDER --collection {printable(name)} --root-name {printable(root)}"
    )


def from_here(file: Path | None, path: str) -> str:
    """Return a file as one names it in the working folder; ``path`` where it is not known."""
    if file is None:
        return path
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def which_face(payload: Payload) -> str:
    """Return which face of its picture an item is, where there are several."""
    face = payload.get("face", {"count": 1})
    return "" if face["count"] == 1 else f"  face {face['number']} of {face['count']}"
