"""``lookalike serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.index import store_option
from lookalike.deploy.cli.search import provider_option

if TYPE_CHECKING:
    from lookalike.encoder.runtime.session import Provider

__all__ = ["serve"]


@click.command(epilog="Example: lookalike serve --port 8000")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where it listens; one that others reach needs an API key in LOOKALIKE_API_KEY.",
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0: any that is free."
)
@store_option
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="BUNDLE",
    help="Serve this model or cleaner; repeatable. By default the shipped ones, and always the models of the "
    "collections.",
)
@click.option(
    "--allow",
    "roots",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Requests may index this folder and those in it; repeatable.",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), help="Requests worked on at once; default: the cores."
)
@click.option(
    "--waiting",
    type=click.IntRange(0, 100_000),
    default=64,
    show_default=True,
    help="Requests that may wait for that; more are told to come later.",
)
@click.option(
    "--max-mb",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="The largest request, in MB.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    help="Seconds that a request may take.",
)
@provider_option
def serve(
    host: str,
    port: int,
    store: str,
    models: tuple[str, ...],
    roots: tuple[Path, ...],
    workers: int | None,
    waiting: int,
    max_mb: int,
    timeout: float,
    provider: Provider,
) -> None:
    """Answer over HTTP, with a page to look at.

    Open the address that it prints in a browser. It holds the embedded store alone, so index through it
    (--allow), or before it is started. SIGTERM and Ctrl-C let it finish what it has begun.
    """
    from lookalike.encoder.errors import MissingExtraError

    try:
        from lookalike.deploy.http.app import create_app
        from lookalike.deploy.http.server import run
        from lookalike.deploy.http.settings import KEY_VARIABLE, Settings
    except ImportError as error:
        raise MissingExtraError(
            f"the service needs {error.name}, which is not installed; pip install 'lookalike[serve]'"
        ) from error
    from lookalike.indexer.open import open_store

    settings = Settings(
        store=store,
        models=models,
        provider=provider,
        roots=tuple(root.resolve() for root in roots),
        host=host,
        key=os.environ.get(KEY_VARIABLE) or None,
        queue_size=waiting,
        body_bytes=max_mb << 20,
        seconds=timeout,
        **({} if workers is None else {"workers": workers}),
    )
    with open_store(store) as opened:
        run(
            create_app(settings, store=opened),
            host=host,
            port=port,
            log=lambda line: click.echo(line, err=True),
        )
