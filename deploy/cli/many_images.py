"""Options of commands that share the work on many images between processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from lookalike.deploy.cli.options import Decorator, Provider, combine, option
from lookalike.deploy.cli.output import log, log_no_images, log_skipped, print_json, progress_bar

if TYPE_CHECKING:
    from lookalike.encoder.embed import OnProvider
    from lookalike.indexer.units import Done, Folder, Plan, Run, Shard, Unit, UnitsReport


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


def print_plan(folder: Folder, plan: Plan[Any], *, as_json: bool) -> None:
    """Print what a plan holds."""
    images = f", {plan.images} images" if plan.images else ""
    log(f"{folder}: planned {plan.count} units{images}")
    log_skipped(plan.skipped)
    if as_json:
        record = {"out": folder.address, "units": plan.count, "images": plan.images}
        print_json({**record, "passed_over": plan.skipped})


def work(
    plan: Plan[Any],
    job: Callable[[tuple[str, Unit]], Done],
    run: Run,
    label: str,
    *,
    shard: Shard | None,
    tidy: bool,
) -> UnitsReport:
    """Do the units of a plan under a progress bar."""
    from lookalike.indexer.units import do_units

    with progress_bar(label, unit="units") as bar:
        return do_units(
            plan,
            job,
            run,
            shard=shard,
            tidy=tidy,
            on_total=bar.on_total,
            on_progress=bar.on_progress,
            log=bar.log,
        )


def log_left(report: UnitsReport, shard: Shard | None) -> None:
    """Print on stderr what a run has left, and what it passed over."""
    if report.status.left:
        log(f"{report.status.left} units are left: run it again")
    if report.status.units == 0 and shard is None:
        log_no_images()
    log_skipped(report.skipped)
