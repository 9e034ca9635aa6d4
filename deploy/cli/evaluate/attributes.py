"""``lookalike evaluate attributes``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.evaluate.group import (
    evaluate,
    image_file,
    print_failures,
    provider_option,
    show_progress,
    write_plot,
)
from lookalike.deploy.cli.options import LocalPath, combine

if TYPE_CHECKING:
    from lookalike.deploy.evaluation import AttributeReport
    from lookalike.encoder.runtime import Provider


@evaluate.command(epilog="Example: lookalike evaluate attributes --faces 50 --curve smiles.png")
@combine(
    click.option("--model", default="faces", show_default=True, help="Bundle folder or shipped model."),
    click.option("--only", metavar="NAME,...", help="These attributes; default: all that LFW scores."),
    click.option("--strength", "strengths", multiple=True, type=click.FloatRange(0, 100, min_open=True),
                 default=(1.0, 2.0, 3.0, 4.0, 5.0), show_default=True,
                 help="In standard deviations; each is added, and removed. Repeatable."),
    click.option("--faces", type=click.IntRange(min=1), default=200, show_default=True,
                 help="Most faces that each attribute is added to, that it is removed from, and queries."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Chooses the faces."),
    click.option("--curve", metavar="FILE.png", type=LocalPath(), callback=image_file,
                 help="Plot what an edit gains and costs over its strength."),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON object."),
    provider_option,
)  # fmt: skip
@click.pass_context
def attributes(
    ctx: click.Context, /, model: str, only: str | None, strengths: tuple[float, ...], faces: int, seed: int,
    curve: Path | None, as_json: bool, provider: Provider,
) -> None:  # fmt: skip
    """Measure edits: does a smile appear, and is it still the same face? On held-out people of LFW.

    Whether an edit shows is decided by a classifier that shares nothing with the model: a discriminant on the
    pixels of the other people, reported with its own AUC. An edited face should still find its own original
    first among all images of LFW, and no other attribute should move.
    """
    from lookalike.deploy.evaluation import (
        attribute_lines,
        evaluate_attributes,
        plot_trade_off,
        read_scored_images,
    )
    from lookalike.encoder.runtime import Model

    opened = Model.open(model, provider=provider)
    names = tuple(part.strip() for part in only.split(",")) if only is not None else ()
    scored = read_scored_images("lfw", None).only(names)
    report = evaluate_attributes(
        opened, scored, strengths=strengths, faces=faces, seed=seed, progress=show_progress
    )
    failed = print_failures(report.failures)
    if curve is not None:
        failed |= not write_plot(curve, lambda: plot_trade_off(curve, _trade_off(report)))
    click.echo(json.dumps(report.to_json()) if as_json else attribute_lines(report))
    ctx.exit(3 if failed else 0)


def _trade_off(report: AttributeReport) -> list[tuple[str, list[tuple[float, float, float]]]]:
    """Return a line of (strength, success, kept) for each attribute added and removed."""
    lines = []
    for result in report.each:
        for sign, verb in ((1, "added"), (-1, "removed")):
            edits = [edit for edit in result.edits if sign * edit.strength > 0]
            points = sorted((abs(edit.strength), edit.success, edit.kept) for edit in edits)
            if points:
                lines.append((f"{result.name} {verb}", points))
    return lines
