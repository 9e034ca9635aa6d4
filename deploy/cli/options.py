"""Options of the commands: grouped in --help, made from dataclasses, and shared by several commands."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from lookalike.deploy.cli.completion import complete_collections, complete_models
from lookalike.deploy.cli.output import log, set_talk
from lookalike.indexer.open import PROJECT_STORE, default_store
from lookalike.indexer.store import StorageConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from lookalike.encoder.images import Crop
    from lookalike.indexer.store import Filter

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]
Helps = dict[str, str | dict[str, Any]]
"""Options by the field they set: the help text, or click's attributes."""
Spec = TypeVar("Spec", bound="DataclassInstance")
_UNGROUPED: Final = "Options"

# Options in groups


class Option(click.Option):
    """An option that ``--help`` lists under a heading of its own.

    Attributes:
        group: The heading.
    """

    def __init__(self, *args: Any, group: str = _UNGROUPED, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group
        if self.metavar is None and not self.is_flag and self.type.name.startswith(("integer", "float")):
            self.metavar = "N" if self.type.name.startswith("integer") else "X"

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Return what stands in brackets: a default in words or as it is typed, a range with two ends."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        elif isinstance(self.default, tuple):
            extra["default"] = ",".join(map(str, self.default))
        low, _, high = extra.pop("range", "").partition("<=x<=")
        if high:
            extra["range"] = f"{low} to {high}"
        return extra


class Command(click.Command):
    """A command whose ``--help`` lists its options in groups; it can be told to say less or more."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += [_quiet_option(), _verbose_option()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups in the order in which their first options were declared."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            line = param.get_help_record(ctx)
            if isinstance(param, click.Option) and line is not None:
                groups.setdefault(getattr(param, "group", _UNGROUPED), []).append(line)
        for name, lines in groups.items():
            with formatter.section(name):
                formatter.write_dl(lines)


def _quiet_option() -> Option:
    return Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=lambda _ctx, _option, given: set_talk(quiet=given),
        help="Show no messages but warnings and errors, and no progress but of downloads and trainings.",
    )


def _verbose_option() -> Option:
    return Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=lambda _ctx, _option, given: set_talk(verbose=given),
        help="Say at the end how long it took and how much memory; show where an error comes from.",
    )


def open_option(**attributes: Any) -> Decorator:
    """Return ``--open``, of a command that writes an image for people to look at."""
    return option(
        "--open",
        is_flag=True,
        expose_value=False,
        callback=lambda _ctx, _option, given: set_talk(show=given),
        help="Open the written image.",
        **attributes,
    )


class Group(click.Group):
    """A verb with commands below it, each a :class:`Command`."""

    command_class = Command


def command(**attributes: Any) -> Callable[[Function], Command]:
    """Return a decorator that makes a function a :class:`Command`."""
    return click.command(cls=Command, **attributes)


def option(*names: str, **attributes: Any) -> Decorator:
    """Return a decorator that gives a command an :class:`Option`."""
    return click.option(*names, cls=Option, **attributes)


def combine(*decorators: Decorator) -> Decorator:
    """Return several decorators as one; ``--help`` lists their options in this order."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


# Options made from dataclasses


def _int_list(count: int | None) -> Callable[[click.Context, click.Parameter, Any], tuple[int, ...] | None]:
    """Return a callback that reads whole numbers with commas between them; ``count``: so many of them."""

    def read(_ctx: click.Context, _option: click.Parameter, value: Any) -> tuple[int, ...] | None:
        if not isinstance(value, str):  # a default
            return value  # type: ignore[no-any-return]
        try:
            numbers = tuple(int(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or count not in (None, len(numbers)):
            some = "" if count is None else f"{count} "
            raise click.BadParameter(f"{value!r} must be {some}whole numbers with commas between them")
        return numbers

    return read


def auto(text: str, default: str = "", **attributes: Any) -> dict[str, Any]:
    """Return an option whose default depends on the data or on other options: it is None unless given.

    Args:
        text: What it sets.
        default: In words, for ``--help``; empty: not shown.
        attributes: More of click's.
    """
    return {"help": text, "default": None, "show_default": default or False, **attributes}


@dataclass(frozen=True)
class Given(Generic[Spec]):
    """The values that were given for the fields of a dataclass.

    Attributes:
        spec: The dataclass.
        values: By field; None of an option of :func:`auto` that was not given.
        defaults: Of the fields that have no option; None: those of the dataclass.
    """

    spec: type[Spec]
    values: Mapping[str, Any]
    defaults: Spec | None = None

    def build(self, **computed: Any) -> Spec:
        """Build the dataclass; ``computed`` fills the fields that have no option or were not given.

        Raises:
            InvalidArgumentError: a value is out of range.
        """
        values = computed | {name: value for name, value in self.values.items() if value is not None}
        return self.spec(**values) if self.defaults is None else replace(self.defaults, **values)


def options_of(
    spec: type[Spec],
    into: str,
    helps: Helps,
    *,
    group: str = _UNGROUPED,
    defaults: Spec | None = None,
) -> Decorator:
    """Return a decorator that makes an option of each field in ``helps``, with its type and default.

    The command gets them all as one argument ``into``, a :class:`Given`.

    Args:
        spec: A dataclass.
        into: Name of the command's argument.
        helps: By field, in the order of ``--help``: the help text, or click's attributes with ``names``.
        group: Heading in ``--help``.
        defaults: An instance with other defaults than the dataclass has.
    """
    hints = get_type_hints(spec, localns={"NoiseSpec": object})  # not imported: it brings numpy
    made = [
        _option_of(name, told, hints[name], _default(spec, defaults, name), group)
        for name, told in helps.items()
    ]

    def decorate(function: Function) -> Function:
        @wraps(function)
        def with_spec(*args: Any, **options: Any) -> Any:
            values = {name: options.pop(name) for name in helps}
            earlier: Given[Spec] | None = options.pop(into, None)
            if earlier is not None:
                values = dict(earlier.values) | values
            return function(*args, **options, **{into: Given(spec, values, defaults)})

        return combine(*made)(with_spec)

    return decorate


def _default(spec: type[DataclassInstance], defaults: object, name: str) -> Any:
    if defaults is not None:
        return getattr(defaults, name)
    (found,) = (each for each in fields(spec) if each.name == name)
    return None if found.default is MISSING else found.default


def _option_of(name: str, told: str | dict[str, Any], hint: Any, default: Any, group: str) -> Decorator:
    flag = f"--{name.replace('_', '-')}"
    attributes: dict[str, Any] = {"group": group, "default": default, "show_default": True}
    if hint is bool and isinstance(told, str) and default is False:
        attributes |= {"is_flag": True, "show_default": False}
    elif bool in (hint, *get_args(hint)):
        flag = f"{flag}/--no-{flag[2:]}"
    else:
        attributes |= _type_attributes(hint)
    attributes |= {"help": told} if isinstance(told, str) else told
    return option(*attributes.pop("names", (flag,)), name, **attributes)


def _type_attributes(hint: Any) -> dict[str, Any]:
    """Return click's attributes for the type of a field."""
    inner = [each for each in get_args(hint) if each is not type(None)]
    origin = get_origin(hint)
    if origin is Literal:
        return {"type": click.Choice([str(each) for each in inner])}
    if origin is tuple:
        count = None if Ellipsis in inner else len(inner)
        metavar = "N,N,..." if count is None else ",".join("N" * count)
        return {"type": click.UNPROCESSED, "callback": _int_list(count), "metavar": metavar}
    return _type_attributes(inner[0]) if inner else {"type": hint}


# Options that several commands have

Provider = Literal["auto", "cpu", "cuda"]
CROP_FORMS: Final = "full|center:F|X,Y,W,H"


class LocalPath(click.Path):
    """A path of this machine; a URL would become folders called ``s3:``."""

    def __init__(self, path_type: type[Path | str] = Path, **kinds: bool) -> None:
        super().__init__(path_type=path_type, **kinds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if _URL.match(os.fspath(value)):
            self.fail(f"{value} is a URL, and only local files and folders can be used here", param, ctx)
        return super().convert(value, param, ctx)


_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
OUTPUT_FILE: Final = LocalPath(dir_okay=False)


def _tell_of_new_store(ctx: click.Context, option: click.Parameter, store: str) -> str:
    is_default = ctx.get_parameter_source(option.name or "") is ParameterSource.DEFAULT
    if is_default and not ctx.resilient_parsing and not Path(store).exists():
        ctx.call_on_close(partial(_name_new_store, store))
    return store


def _name_new_store(store: str) -> None:
    if Path(store).exists():
        log(
            f"new store: {store}; to keep it elsewhere, name it with --store or make a folder "
            f"{PROJECT_STORE} here"
        )


_STORE: Final[dict[str, Any]] = {
    "default": default_store,
    "show_default": "the folder .lookalike here or above, else one of yours",
    "envvar": "LOOKALIKE_STORE",
    "metavar": "FOLDER|URL",
    "help": "Folder of an embedded store, or URL of a Qdrant server (API key: QDRANT_API_KEY); several URLs "
    "of a cluster: with commas between.",
}
store_option = option("--store", **_STORE)
filled_store_option = option("--store", callback=_tell_of_new_store, **_STORE)
"""The same of a command that makes the store where there is none, and says where."""
provider_option = option(
    "--provider",
    default="auto",
    show_default=True,
    type=click.Choice(get_args(Provider)),
    help="Processor that runs the model.",
)
images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=LocalPath())


def collection_option(text: str = "Name of the collection") -> Decorator:
    """Return ``--collection``; the command passes what it gets, or None, to ``choose_collection``."""
    return option(
        "-c",
        "--collection",
        envvar="LOOKALIKE_COLLECTION",
        metavar="NAME",
        shell_complete=complete_collections,
        help=f"{text}; not needed where the store has one alone.",
    )


def model_option(
    default: str = "faces", name: str = "model", *, show_default: str | Literal[True] = True
) -> Decorator:
    """Return ``--model``, a bundle."""
    return option(
        "--model",
        name,
        default=default,
        show_default=show_default,
        metavar="BUNDLE",
        shell_complete=complete_models,
        help="Name of a model (see lookalike models), or its folder.",
    )


def json_option(text: str = "Print an object as JSON on stdout.", **attributes: Any) -> Decorator:
    """Return ``--json``."""
    return option("--json", "as_json", is_flag=True, help=text, **attributes)


def max_pixels_option(default: int | None = None, **attributes: Any) -> Decorator:
    """Return ``--max-pixels``."""
    return option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=default,
        show_default=f"{default:,}"
        if default
        else "120 million for JPEG, which is decoded small, else 50 million",
        help="Refuse images with more pixels than this.",
        **attributes,
    )


def _to_crop(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Crop | None:
    from lookalike.encoder.images import Crop

    return None if text is None else Crop.parse(text)


def _to_filter(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Filter | None:
    from lookalike.indexer.store import parse_where

    return None if text is None else parse_where(text)


def crop_option(text: str = "Crop of these images, if not the model's own.", **attributes: Any) -> Decorator:
    """Return ``--crop``; the command gets a ``Crop`` or None."""
    return option("--crop", metavar=CROP_FORMS, callback=_to_crop, help=text, **attributes)


def where_option(**attributes: Any) -> Decorator:
    """Return ``--where``; the command gets a ``Filter`` or None."""
    return option(
        "--where",
        metavar="CONDITIONS",
        callback=_to_filter,
        help="Only images that match all conditions: person=NAME, person!=NAME, Smiling>0, path~TEXT; "
        "separate them with commas.",
        **attributes,
    )


_LAYOUT: Final = "Storage of a new collection (an existing collection keeps its own)"
layout_options = options_of(
    StorageConfig,
    "layout",
    {
        "expect": auto(
            "Number of vectors to plan for; sets the defaults below (above 10 million: int8, on disk).",
            type=click.IntRange(min=0),
        ),
        "shards": auto(
            "Number of shards (server only).", "two per peer of a cluster", type=click.IntRange(min=1)
        ),
        "replicas": auto("Copies of each shard (server only).", "2 in a cluster", type=click.IntRange(min=1)),
        "quantization": auto(
            "Search compressed vectors, then rescore with the originals. int8 finds the same results; "
            "binary needs 512 dimensions or more and misses about 1 hit in 70."
        ),
        "on_disk": auto("Keep the original vectors on disk or in memory.", names=("--on-disk/--in-memory",)),
        "hnsw_m": auto("Edges per vector in the HNSW graph.", "16", type=click.IntRange(min=4)),
        "hnsw_ef_construct": auto(
            "Candidates examined when building the HNSW graph.", "128", type=click.IntRange(min=4)
        ),
        "hnsw_payload_m": auto(
            "Extra HNSW edges between vectors with the same field value.", "0", type=click.IntRange(min=0)
        ),
    },
    group=_LAYOUT,
)
"""The command gets ``layout``, a :class:`Given` of StorageConfig."""


# Sources of images

SOURCES: Final = "Sources"
files_from_options = combine(
    option(
        "--files-from",
        metavar="-|FILE",
        group=SOURCES,
        help="Read image file names from FILE, one per line; - reads standard input.",
    ),
    option("-0", "--null", "nul", is_flag=True, group=SOURCES, help="Names in --files-from end with NUL."),
    option(
        "--root",
        type=LocalPath(file_okay=False, exists=True),
        group=SOURCES,
        help="Folder that the files of --files-from, or the images in a file of latents, belong to.",
        show_default="the deepest folder that holds them all",
    ),
)
pattern_options = combine(
    option(
        "--include",
        multiple=True,
        metavar="GLOB",
        group=SOURCES,
        help="Only files whose path or name matches; repeatable.",
    ),
    option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        group=SOURCES,
        help="Skip files whose path or name matches; repeatable.",
    ),
    option("--hidden", is_flag=True, group=SOURCES, help="Include files and folders that start with a dot."),
)


def check_root(root: Path | None, files_from: str | None) -> None:
    """Refuse ``--root`` without ``--files-from``."""
    if root is not None and files_from is None:
        raise click.UsageError("--root works only with --files-from; leave it out")
