"""``lookalike serve``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

import click

from lookalike.deploy.cli.options import (
    LocalPath,
    Provider,
    command,
    max_pixels_option,
    option,
    provider_option,
    store_option,
)
from lookalike.deploy.cli.output import log

_LIMITS = "Limits"


@command(epilog="Example: lookalike serve --port 8000")
@option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on; an address that other machines reach needs an API key in LOOKALIKE_API_KEY.",
)
@option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0: any free port.",
)
@store_option
@option(
    "--model",
    "models",
    multiple=True,
    metavar="BUNDLE",
    help="Serve this model or denoiser; repeatable. Models of the collections are always served.",
    show_default="the shipped ones",
)
@option(
    "--index-root",
    "roots",
    multiple=True,
    metavar="FOLDER",
    type=LocalPath(exists=True, file_okay=False),
    help="Allow requests to index this folder and its subfolders; repeatable.",
)
@option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Origin under which a reverse proxy serves, such as https://photos.example.org; repeatable.",
)
@option(
    "--root-path",
    default="",
    metavar="PATH",
    help="Path below which a reverse proxy serves, such as /lookalike.",
    show_default="/",
)
@option("--open", "open_browser", is_flag=True, help="Open the page in the web browser.")
@option(
    "--log-format",
    type=click.Choice(["json", "plain"]),
    help="Write requests and events to stderr as JSON, or as lines for people.",
    show_default="plain on a terminal, else json",
)
@provider_option
@option(
    "--workers",
    type=click.IntRange(1, 256),
    group=_LIMITS,
    help="Number of requests to work on at once; denoising never takes the last worker.",
    show_default="number of cores",
)
@option(
    "--queue-size",
    type=click.IntRange(0, 100_000),
    default=64,
    show_default=True,
    group=_LIMITS,
    help="Number of requests that may wait; further ones get 503 with Retry-After.",
)
@option(
    "--max-mb",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    group=_LIMITS,
    help="Largest request, in MB.",
)
@max_pixels_option(group=_LIMITS)
@option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    group=_LIMITS,
    help="Longest time for a request, in seconds.",
)
def serve(
    host: str,
    port: int,
    store: str,
    models: tuple[str, ...],
    roots: tuple[Path, ...],
    origins: tuple[str, ...],
    root_path: str,
    open_browser: bool,
    log_format: Literal["json", "plain"] | None,
    workers: int | None,
    queue_size: int,
    max_mb: int,
    max_pixels: int | None,
    timeout: float,
    provider: Provider,
) -> None:
    """Serve the HTTP API and web page.

    Open the printed address in a browser. The server locks an embedded store: index through it (--index-root)
    or before starting it. Where another process has the store open, the server says which and does not start.
    On SIGTERM or Ctrl-C it finishes the requests it has begun; a second Ctrl-C stops it at once.
    """
    from lookalike.encoder.errors import MissingExtraError

    try:
        from lookalike.deploy.http import KEY_VARIABLE, READ_KEY_VARIABLE, Settings, create_app, run
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
        read_key=os.environ.get(READ_KEY_VARIABLE) or None,
        origins=origins,
        root_path=root_path,
        queue_size=queue_size,
        body_bytes=max_mb << 20,
        max_pixels=max_pixels,
        seconds=timeout,
        **({} if workers is None else {"workers": workers}),
    )
    with open_store(store) as opened:
        opened.hold()
        run(
            create_app(settings, store=opened),
            host=host,
            port=port,
            log=log,
            log_format=log_format or ("plain" if sys.stderr.isatty() else "json"),
            on_url=lambda url: opened.hold(served_at=url),
            open_browser=open_browser,
        )
