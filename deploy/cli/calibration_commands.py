"""``lookalike calibrate``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lookalike.deploy.evaluation.reliability import Reliability
    from lookalike.encoder.bundle.calibration import Calibration
    from lookalike.encoder.runtime.model import Provider

__all__ = ["calibrate"]


@click.command(epilog="Example: lookalike calibrate people/ --model faces --out my-faces")
@click.argument("source", metavar="FOLDER|lfw")
@click.option("--model", default="faces", show_default=True, help="Bundle folder or shipped model.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Where the bundle goes with its calibration; may be the model's own folder.",
)
@click.option("--crop", metavar="full|centre:F|X,Y,W,H", help="How these pictures are framed, if otherwise.")
@click.option(
    "--reliability",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw predicted probability against observed share.",
)
@click.option("--json", "as_json", is_flag=True, help="An object on stdout.")
@click.option("--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.pass_context
def calibrate(
    ctx: click.Context,
    source: str,
    model: str,
    out: Path,
    crop: str | None,
    reliability: Path | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Fit probabilities and thresholds to people in folders.

    The pictures lie in one folder a person, of people the model has not learned from; of lfw, people on whom
    none of our figures is reported are taken. The model itself stays: what is indexed with it can be searched
    with the copy, search --model BUNDLE. Figures are of people left out of the fit in turn.
    """
    from tqdm import tqdm

    from lookalike.deploy.evaluation.fit_data import find_people, measure_people
    from lookalike.deploy.evaluation.reliability import cross_validate
    from lookalike.encoder.errors import CalibrationError
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.encoder.runtime.model import Model
    from lookalike.trainer.fitting.calibration import fit_calibration

    opened = Model.open(model, provider=provider)
    named = find_people(source, opened)
    framing = None if crop is None else Crop.parse(crop)
    with tqdm(desc="measuring", total=len(named), unit="image", disable=None, leave=False) as bar:
        measured = measure_people(opened, named, crop=framing, on_progress=bar.update)
    for failure in measured.failures:
        click.echo(f"failed: {failure}", err=True)
    fitted = fit_calibration(measured.embeddings, measured.people, measured.errors)
    try:
        judged = cross_validate(measured.embeddings, measured.people)
    except CalibrationError as error:
        if reliability is not None:
            raise
        click.echo(f"how far to believe it was not measured: {error}", err=True)
        judged = None
    if reliability is not None and judged is not None:
        _draw(judged, reliability)
    written = opened.bundle.recalibrated(fitted, out)
    if as_json:
        click.echo(json.dumps(_to_json(fitted, judged) | {"bundle": str(out), "model_id": written.model_id}))
    else:
        _print(fitted, judged)
        click.echo(os.fsencode(out))  # as it is: made to be read by the next program
    ctx.exit(3 if measured.failures else 0)


def _draw(judged: Reliability, file: Path) -> None:
    from lookalike.deploy.evaluation.reliability import plot_reliability
    from lookalike.encoder.images.contact_sheet import save_image
    from lookalike.encoder.images.preprocess import printable

    save_image(file, plot_reliability(judged))
    click.echo(f"drawn: {printable(str(file))}", err=True)


def _to_json(fitted: Calibration, judged: Reliability | None) -> dict[str, object]:
    likeness, errors = fitted.likeness, fitted.errors
    return {
        "likeness": None if likeness is None else likeness.to_json(),
        "errors": None if errors is None else errors.to_json(),
        "reliability": None if judged is None else judged.to_json(),
    }


def _print(fitted: Calibration, judged: Reliability | None) -> None:
    likeness = fitted.likeness
    if likeness is None:
        raise AssertionError("what was fitted to people has a map of their scores")
    click.echo(
        f"{likeness.people} people, {likeness.matched} matched and {likeness.mismatched} mismatched pairs"
    )
    for rate in sorted(likeness.thresholds, reverse=True):
        click.echo(f"  false match rate {rate:<6g} above {likeness.thresholds[rate]:.3f}")
    if judged is not None:
        right = "" if judged.sure_right is None else f", {judged.sure_right:.3f} of them right"
        click.echo(f"  Cllr of pairs          {judged.cllr:.3f} bits")
        click.echo(
            f"  calibration error      {judged.pair_error:.3f} of pairs, {judged.hit_error:.3f} of hits"
        )
        click.echo(f"  log loss of hits       {judged.hit_log_loss:.4f}")
        click.echo(f"  hits with p over 0.5   {judged.sure} of {judged.hits}{right}")
