"""Options of commands that find faces or cut them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.options import Decorator, option

if TYPE_CHECKING:
    from lookalike.encoder.detect import Frame

_FORMS: Final = "lfw|arcface|X,Y,..."


def _to_frame(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Frame | None:
    from lookalike.encoder.detect import Frame

    return None if text is None else Frame.parse(text)


def frame_option(text: str, **attributes: Any) -> Decorator:
    """Return ``--frame``; the command gets a ``Frame`` or None."""
    return option("--frame", metavar=_FORMS, callback=_to_frame, help=text, **attributes)
