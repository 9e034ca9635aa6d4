"""The ``lookalike`` command: loads a verb when it is called, turns errors into messages and exit codes.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 finished but some inputs failed, 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Final, TextIO

import click

from lookalike.deploy.cli.output import in_color, is_verbose, log, set_talk
from lookalike.encoder.errors import InvalidArgumentError, LookalikeError

_CLI: Final = "lookalike.deploy.cli"
PROGRAM: Final = "lookalike"
COMPLETE_VARIABLE: Final = "_LOOKALIKE_COMPLETE"
"""Set by a shell that asks for words: click answers instead of running the command."""
VERBS: Final = {
    "train": (f"{_CLI}.training.train", "Train a model on LFW, MNIST or a folder of images."),
    "index": (f"{_CLI}.indexing.index", "Add the images of folders to a collection."),
    "embed": (
        f"{_CLI}.indexing.latents",
        "Write the vectors of images to a Parquet file, or to a folder of parts.",
    ),
    "latents": (f"{_CLI}.indexing.latents", "Show how far a folder of parts is."),
    "search": (f"{_CLI}.similar.search", "Find the images most similar to an image."),
    "duplicates": (f"{_CLI}.similar.duplicates", "Find copies among the images of a collection."),
    "cluster": (f"{_CLI}.similar.cluster", "Group the similar images of a collection."),
    "compare": (f"{_CLI}.similar.compare", "Compare two images."),
    "map": (f"{_CLI}.similar.map", "Draw a map of a collection: similar images lie near each other."),
    "reconstruct": (f"{_CLI}.images.draw", "Show images above their reconstructions."),
    "generate": (f"{_CLI}.images.draw", "Generate new images."),
    "interpolate": (f"{_CLI}.images.draw", "Interpolate between images."),
    "edit": (f"{_CLI}.images.draw", "Change an attribute of a face, such as its smile."),
    "denoise": (f"{_CLI}.images.denoise", "Denoise images of any size."),
    "faces": (f"{_CLI}.images.faces", "Find, show and cut out the faces of photographs."),
    "collections": (
        f"{_CLI}.collections",
        "List, show, create, copy, verify, rebalance or delete collections.",
    ),
    "facets": (f"{_CLI}.collections", "Count the values of a metadata field in a collection."),
    "evaluate": (f"{_CLI}.evaluate", "Measure models, collections and vectors of any origin."),
    "attributes": (f"{_CLI}.fitted", "Fit or list attributes of faces, such as Smiling."),
    "calibrate": (f"{_CLI}.fitted", "Fit match probabilities and thresholds to labeled people."),
    "models": (f"{_CLI}.models", "List models, or import an encoder from elsewhere."),
    "serve": (f"{_CLI}.serve", "Serve the HTTP API and web page."),
    "completion": (f"{_CLI}.main", "Print what makes a shell complete these words."),
    "demo": (f"{_CLI}.main", "Index LFW, search, denoise and generate, and save the images."),
}
"""Verb to its module and its line in --help, so that --help imports none of them."""


class _LazyGroup(click.Group):
    """A group that imports a verb's module when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # the same
        if cmd_name not in VERBS:
            return None
        return _command(VERBS[cmd_name][0], cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``help VERB`` as ``VERB --help``, and ``version`` as ``--version``."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        elif args == ["version"]:
            args = ["--version"]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # the same
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


def _command(module: str, name: str) -> click.Command:
    loaded = importlib.import_module(module)
    command = getattr(loaded, name, None) or getattr(loaded, f"{name}_")  # map is a name of Python
    if not isinstance(command, click.Command):
        raise TypeError(f"{module}.{name} is no command")
    return command


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(None, "-V", "--version", package_name="lookalike", message="%(package)s %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Similar-image search that trains its own encoder.

    Index a folder of images, then search it with an image.
    """
    ctx.color = in_color()


@click.command(epilog="Example: lookalike demo --out demo")
@click.option(
    "--out",
    default="demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the store and the images.",
)
@click.option("--train", is_flag=True, help="Train the model first: takes minutes, needs the [train] extra.")
@click.option("--epochs", default=60, show_default=True, metavar="N", help="Epochs of that training.")
def demo(out: Path, train: bool, epochs: int) -> None:
    """Index LFW, search, denoise and generate, and save the images.

    If LFW is neither found nor downloadable, faces that the model generates take its place.
    """
    from lookalike.deploy.cli.output import progress_bar
    from lookalike.deploy.cli.training.train import need_extra
    from lookalike.deploy.demo import run_demo

    if train:
        need_extra()
    run_demo(out, train_epochs=epochs if train else None, say=click.echo, log=log, progress=progress_bar)


@click.command(epilog="Example: lookalike completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete these words.

    Commands, options, collections, models and fields are completed. For bash and zsh, add the output to
    ~/.bashrc or ~/.zshrc; for fish, write it to ~/.config/fish/completions/lookalike.fish.
    """
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"click completes no words in {shell}")
    click.echo(completer(group, {}, PROGRAM, COMPLETE_VARIABLE).source())


def main() -> None:
    """Run the command and exit. Errors of this library are one line on stderr, without traceback."""
    if os.getpid() == 1:  # of a container: SIGTERM is dropped there unless it is handled
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    _prepare_streams()
    stdout = sys.stdout  # click wraps it when a pipe breaks
    try:
        code = _run()
        stdout.flush()
    except BrokenPipeError:
        code = _after_broken_pipe(stdout)
    sys.exit(code)


def _run() -> int:
    """Run the command and return its exit code."""
    set_talk(quiet=False, verbose=False, show=False)
    began = time.perf_counter()
    try:
        code = group.main(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
    except SystemExit as error:
        if COMPLETE_VARIABLE in os.environ:  # click answers the shell, and ends
            return 0
        raise BrokenPipeError from error  # the other reason why it ends so
    except BrokenPipeError:
        raise
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.exceptions.Abort, LookalikeError, MemoryError, RecursionError, OSError) as error:
        return _fail(error)
    if is_verbose():
        log(f"it took {time.perf_counter() - began:.1f} s{_peak_memory()}")
    return code if isinstance(code, int) else 0


def _fail(error: BaseException) -> int:
    """Print an error on stderr, where ``--verbose`` asks for it below the calls that led to it."""
    if is_verbose():
        traceback.print_exception(error)
    message, code = _told(error)
    click.echo(f"{click.style(f'{PROGRAM}:', fg='red', bold=True)} {message}", err=True, color=in_color())
    return code


def _told(error: BaseException) -> tuple[str, int]:
    """Return an error in one line, and the exit code."""
    match error:
        case click.exceptions.Abort():
            return "interrupted; run it again to continue", 130
        case MemoryError():
            return "there is not enough memory for this; close other programs, or ask for less", 1
        case RecursionError():
            return "an input is nested too deeply to be read; flatten it", 1
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}", 1
    return str(error), 2 if isinstance(error, InvalidArgumentError) else 1


def _peak_memory() -> str:
    """Return how much memory this process needed, and its largest worker process."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # bytes there, kilobytes elsewhere
    own, workers = (
        resource.getrusage(who).ru_maxrss / unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return f" and {own:,.0f} MB of memory" + f", a worker {workers:,.0f} MB" * (workers > 0)


def _prepare_streams() -> None:
    """Make the standard streams writable whatever they are.

    A stream that was closed becomes the null device: a file that is opened later would otherwise take its
    number, and messages would be written into it. Characters that an encoding lacks are escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _after_broken_pipe(stdout: TextIO) -> int:
    """Return the exit code where nobody reads on: 0 if that is stdout, of which the reader had enough."""
    if not _has_no_reader(stdout):
        return 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # for what is flushed at exit
    return 0


def _has_no_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
    except AttributeError:  # Windows
        return True
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
