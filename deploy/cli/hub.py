"""``lookalike models push`` and ``pull``: models sent to and fetched from a hub, or a folder like one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from lookalike.deploy.cli.options import LocalPath, command, option
from lookalike.deploy.cli.output import log, print_path

SHIPPED_LICENCE: Final = "apache-2.0"
"""Of the shipped models; that of others is not known here."""


def models_folder(out: Path | None) -> Path:
    """Return where new models go."""
    from lookalike.encoder.bundle import models_folders

    return models_folders()[0] if out is None else out


@command(epilog="Example: lookalike models push mine hf://ada/mine")
@click.argument("bundle", metavar="NAME")
@click.argument("target", metavar="hf://OWNER/NAME[@BRANCH]|FOLDER")
@option("--private", is_flag=True, help="Make the repository private, if it is new.")
def push(bundle: str, target: str, private: bool) -> None:
    """Send a model to a Hugging Face hub, or copy it to a folder laid out like one of its repositories.

    The model's card goes with it as README.md; one that is there already stays. The hub is huggingface.co, or
    the one that HF_ENDPOINT names; it asks for a token in HF_TOKEN, or that of hf auth login.
    """
    from lookalike.encoder.bundle import Bundle, is_shipped
    from lookalike.encoder.export import hub

    hub.need_extra()
    opened = Bundle.open(bundle)
    licence = SHIPPED_LICENCE if is_shipped(opened.folder) else None
    click.echo(hub.push(opened, target, private=private, licence=licence))


@command(epilog="Example: lookalike models pull hf://ada/mine")
@click.argument("source", metavar="hf://OWNER/NAME[@REVISION]|FOLDER")
@option("--name", metavar="NAME", help="Name of the model and of its folder.", show_default="as the source")
@option(
    "--out",
    type=LocalPath(),
    metavar="FOLDER",
    help="Folder to create the model's folder in.",
    show_default="LOOKALIKE_MODELS, or models in your user data folder",
)
@option(
    "--model-id", metavar="ID", help="Take it only if its model_id begins with these 12 hex digits or more."
)
def pull(source: str, name: str | None, out: Path | None, model_id: str | None) -> None:
    """Fetch a model from a Hugging Face hub, or from a folder laid out like one of its repositories.

    Every file is checked by its digest before the model is taken, and nothing in it is executed. A digest
    says that a file is what its author wrote, not that its author means well: --model-id names the model you
    want.
    """
    from lookalike.encoder.bundle import check_name
    from lookalike.encoder.export import hub

    hub.need_extra()
    address = hub.HubAddress.parse(source)
    usual = Path(source).resolve().name if address is None else address.repository.partition("/")[2]
    folder = models_folder(out) / check_name(usual if name is None else name)
    fetched = hub.pull(source, folder, model_id=model_id)
    log(f"{fetched.name}: model {fetched.model_id[: hub.LEAST_ID]}, every file has its digest")
    print_path(folder)
