"""The ``lookalike`` command: verbs loaded only when they are called, one place for exit codes.

Exit codes: 0 good, 1 failed, 2 usage, 3 finished but some inputs failed, 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import Final

import click

from lookalike.encoder.errors import InvalidArgumentError, LookalikeError

__all__ = ["VERBS", "group", "main"]

VERBS: Final = {
    "train": ("lookalike.deploy.cli.train", "Train a model on LFW, MNIST or a folder of images."),
    "index": ("lookalike.deploy.cli.index", "Put the pictures of folders into a collection."),
    "embed": (
        "lookalike.deploy.cli.embed_commands",
        "Write the latents of pictures into a Parquet file.",
    ),
    "search": ("lookalike.deploy.cli.search", "Find the pictures most like a picture."),
    "reconstruct": (
        "lookalike.deploy.cli.draw",
        "Draw pictures above what the model keeps of them.",
    ),
    "generate": ("lookalike.deploy.cli.draw", "Draw pictures that never were."),
    "interpolate": ("lookalike.deploy.cli.draw", "Draw what lies between pictures."),
    "denoise": ("lookalike.deploy.cli.denoise", "Take the noise from pictures of any size."),
    "edit": ("lookalike.deploy.cli.edit_commands", "Draw the same face, smiling."),
    "collections": (
        "lookalike.deploy.cli.collections",
        "List, show, make, copy, switch or delete collections.",
    ),
    "facets": (
        "lookalike.deploy.cli.facet_commands",
        "Count what the pictures of a collection say of themselves.",
    ),
    "evaluate": (
        "lookalike.deploy.cli.evaluate",
        "Measure models, collections and vectors of any origin.",
    ),
    "attributes": (
        "lookalike.deploy.cli.attribute_commands",
        "Fit or list attributes: Smiling and what else can be told.",
    ),
    "calibrate": (
        "lookalike.deploy.cli.calibration_commands",
        "Fit probabilities and thresholds to people in folders.",
    ),
    "models": (
        "lookalike.deploy.cli.models",
        "List the bundles at hand, or wrap an encoder of your own.",
    ),
    "serve": ("lookalike.deploy.cli.serve", "Answer over HTTP, with a page to look at."),
    "demo": ("lookalike.deploy.demo", "The whole tour on real data, with pictures."),
}
"""Verb to the module that holds it and its line in --help: so --help imports none of them."""

_BELOW: Final = {
    "collections": {
        "create": "lookalike.deploy.cli.creation_commands",
        "switch": "lookalike.deploy.cli.creation_commands",
    },
}
"""Verbs below a verb that stand in modules of their own, or in rooms that its own room never imports."""


class _LazyGroup(click.Group):
    """A group that imports a verb's module when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # the same
        if cmd_name not in VERBS:
            return None
        command = _command(VERBS[cmd_name][0], cmd_name)
        if isinstance(command, click.Group):
            for name, module in _BELOW.get(cmd_name, {}).items():
                command.add_command(_command(module, name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            ctx.fail(f"no verb {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # the same
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


def _command(module: str, name: str) -> click.Command:
    command = getattr(importlib.import_module(module), name)
    if not isinstance(command, click.Command):
        raise TypeError(f"{module}.{name} is no command")
    return command


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="lookalike", message="%(package)s %(version)s")
def group() -> None:
    """Similar-image search that trains its own encoder.

    Who looks like this? Index a folder of aligned pictures, then search it with one.
    """


def main() -> None:
    """Run the command and exit. Errors of this library are one line on stderr, without traceback."""
    try:
        code = group.main(prog_name="lookalike", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("lookalike: interrupted; run it again and it goes on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LookalikeError as error:
        click.echo(f"lookalike: {error}", err=True)
        sys.exit(2 if isinstance(error, InvalidArgumentError) else 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"lookalike: {where}{error.strerror or error}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
