"""``--denoise``: what the networks of ``lookalike train`` are taught to clean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lookalike.encoder.images.noise import NoiseSpec

__all__ = ["denoise_option"]


def _noise(_ctx: click.Context, _option: click.Parameter, text: str) -> NoiseSpec | None:
    from lookalike.encoder.images.noise import NoiseSpec

    noise = NoiseSpec.parse(text)
    return None if noise.is_zero else noise


denoise_option = click.option(
    "--denoise",
    "noise",
    default="0",
    show_default=True,
    metavar="SIGMA|LO:HI|KIND:...",
    callback=_noise,
    help="Teach it to clean: noise on the input, none on the target. Gaussian of 255, at one level or each "
    "picture at its own; or salt-pepper:0.1, poisson:25, masking:0.5, jpeg:10:60.",
)
