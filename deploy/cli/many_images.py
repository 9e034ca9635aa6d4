"""Options of commands that share the work on many images between processes and machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from lookalike.deploy.cli.options import Decorator, Provider, combine, option

if TYPE_CHECKING:
    from lookalike.encoder.embed import OnProvider
    from lookalike.indexer.units import Run, Shard


def _to_shard(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Shard | None:
    from lookalike.indexer.units import Shard

    return None if text is None else Shard.parse(text)


def shard_option(**attributes: Any) -> Decorator:
    """Return ``--shard``; the command gets a ``Shard`` or None."""
    return option(
        "--shard",
        metavar="I/N",
        callback=_to_shard,
        help="Do the I-th of N shares of the units, from 1/N to N/N: one run for each, anywhere.",
        **attributes,
    )


def engine_option(**attributes: Any) -> Decorator:
    """Return ``--engine``: ``local`` or ``ray``."""
    return option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Work in processes of this machine, or on a Ray cluster (extra ray).",
        **attributes,
    )


def many_images_options(group: str) -> Decorator:
    """Return ``--shard``, ``--engine`` and ``--plan``; the last is ``only_plan`` in the command."""
    return combine(
        shard_option(group=group),
        engine_option(group=group),
        option(
            "--plan", "only_plan", is_flag=True, group=group, help="Only list the images, and write the plan."
        ),
    )


def check_share(shard: Shard | None, engine: str, provider: Provider, *, overwrite: bool) -> None:
    """Refuse options that contradict one another."""
    if shard is not None and (overwrite or engine != "local"):
        raise click.UsageError(
            "--shard is the share of a run on this machine with a plan that all runs have; use --engine ray "
            "without it, and --overwrite with --plan before"
        )
    if engine == "ray" and provider == "cuda":
        raise click.UsageError("--engine ray works on CPUs; leave out --provider cuda")


@contextmanager
def running(model: OnProvider, engine: str) -> Iterator[Run]:
    """Yield what does units; the model is kept for its processes already."""
    from lookalike.indexer.units import LocalRun, run_on_ray

    if engine == "ray":
        yield run_on_ray
        return
    with closing(LocalRun(model)) as run:
        yield run
