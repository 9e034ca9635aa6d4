"""Options of commands that find faces or cut them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.options import Decorator, combine, option

if TYPE_CHECKING:
    from lookalike.encoder.detect import ChosenFace, Frame
    from lookalike.encoder.images import Crop

_FORMS: Final = "lfw|arcface|X,Y,..."


def _to_frame(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Frame | None:
    from lookalike.encoder.detect import Frame

    return None if text is None else Frame.parse(text)


def frame_option(text: str, **attributes: Any) -> Decorator:
    """Return ``--frame``; the command gets a ``Frame`` or None."""
    return option("--frame", metavar=_FORMS, callback=_to_frame, help=text, **attributes)


one_face_options: Final = combine(
    option(
        "--faces",
        is_flag=True,
        help="Take the most prominent face of each IMAGE, a whole photograph, turned upright.",
    ),
    option(
        "--face", type=click.IntRange(min=1), metavar="N", help="Take the Nth face from the left instead."
    ),
)
"""``--faces`` and ``--face N``; the command passes what it gets to :func:`one_face`."""


def one_face(crop: Crop | None, *, faces: bool, face: int | None) -> Crop | ChosenFace | None:
    """Return how images are framed: one face of each, where that is asked for."""
    if not faces and face is None:
        return crop
    from lookalike.encoder.detect import ChosenFace

    if crop is not None:
        raise click.UsageError("--crop does not work with --faces and --face: leave one out")
    return ChosenFace(face)
