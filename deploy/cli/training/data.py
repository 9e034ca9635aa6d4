"""Options of the images that a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from lookalike.deploy.cli.options import Decorator, Function, LocalPath, combine, crop_option, option
from lookalike.deploy.cli.output import log

if TYPE_CHECKING:
    from lookalike.encoder.images import Crop, ImageSpec
    from lookalike.trainer.data import Dataset


def training_data_options(folder: str) -> Decorator:
    """Return ``--data`` and ``--out`` of a training."""
    return combine(
        option(
            "--data", required=True, metavar="lfw|mnist|FOLDER", help=f"LFW, MNIST, or a folder {folder}."
        ),
        option("--out", required=True, type=LocalPath(), help="Folder of the new bundle."),
    )


Subfolders = Literal["auto", "class", "person", "none"]
_MEANINGS: Final[Mapping[Subfolders, str]] = {
    "auto": "class where there are 2 to 100 with ten images or more each on average, else none",
    "class": "each is a class, its images are split, the model learns to tell classes apart",
    "person": "each is a person, an identity embedding is trained on the names",
    "none": "names are not used, but no subfolder is both trained on and measured",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions:
    """The training images and their preprocessing; each attribute has the name of its option."""

    data: str
    subfolders: Subfolders
    class_attribute: str | None
    size: int | None
    gray: bool
    crop: Crop | None
    faces: bool
    quick_jpeg: bool = False

    @property
    def digits(self) -> bool:
        """Whether the images are those of MNIST."""
        return self.data == "mnist"

    @property
    def shape(self) -> dict[str, Any]:
        """``size`` S in pixels and ``channels`` C of the network."""
        from lookalike.trainer.data import default_shape

        side, channels = default_shape(self.data)
        return {"size": side if self.size is None else self.size, "channels": 1 if self.gray else channels}

    def open(self) -> Dataset:
        """Return the data set, sorted into classes.

        Raises:
            InvalidArgumentError: the attribute of ``--class-attribute`` does not exist.
            DataError: the images cannot be found, or the subfolders cannot be classes.
            MissingExtraError: faces are to be found, and the extra for it is not installed.
        """
        from lookalike.trainer.data import by_attribute, by_subfolder, open_dataset, subfolders_are_classes

        dataset = open_dataset(self.data, progress=True)
        if self.faces:
            if self.digits or self.crop is not None:
                raise click.UsageError("--faces works with images of faces, and without --crop")
            dataset = dataset.with_faces()
        if self.class_attribute is not None:
            return by_attribute(dataset, self.class_attribute)
        if self.subfolders == "auto" and subfolders_are_classes(dataset):
            dataset = by_subfolder(dataset)
            log(
                f"{dataset.name}: its {len(dataset.classes)} subfolders are taken as classes; if each is a "
                "person, pass --subfolders person, if they mean nothing, none"
            )
            return dataset
        return by_subfolder(dataset) if self.subfolders == "class" else dataset

    def image(self, dataset: Dataset) -> ImageSpec:
        """Return how the images are cropped and resized."""
        from lookalike.encoder.images import ImageSpec

        return ImageSpec(**self.shape, crop=self.crop or dataset.crop, quick_jpeg=self.quick_jpeg)


def _renamed(old: str, advice: str) -> Decorator:
    """Return a removed option: the error of a command that is given it names the new one."""

    def refuse(_ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"{old} is now --subfolders; pass {advice}")

    return click.option(old, help=f"Now: {advice}.", hidden=True, expose_value=False, callback=refuse)


def data_options(folder: str, *, subfolders: Sequence[Subfolders]) -> Decorator:
    """Return the options of the data, the first meaning of subfolders as the default.

    The command gets ``source``, a :class:`DataOptions`, and ``out``.
    """
    options = combine(
        training_data_options(folder),
        option(
            "--subfolders",
            default=subfolders[0],
            show_default=True,
            type=click.Choice(subfolders),
            help=f"What subfolders are. {'; '.join(f'{name}: {_MEANINGS[name]}' for name in subfolders)}.",
        ),
        _renamed("--classes", "--subfolders class for --classes subfolder, --subfolders none for none"),
        _renamed("--labels", "--subfolders person for --labels person, --subfolders none for none"),
        option(
            "--class-attribute",
            metavar="NAME",
            help="lfw only: two classes, with this attribute and without it.",
        ),
        option("--size", type=int, help="Input side in pixels.", show_default="28 for mnist, else 64"),
        option("--gray", is_flag=True, help="Use one channel instead of RGB; mnist is always gray."),
        crop_option("Crop of the images.", show_default="center:0.36 for lfw, else full"),
        option(
            "--faces",
            is_flag=True,
            help="Train on the main face of each image, found and turned upright; others are left out.",
        ),
    )

    def decorate(function: Function) -> Function:
        @wraps(function)
        def with_data(**given: Any) -> None:
            source = DataOptions(
                **{each.name: given.pop(each.name) for each in fields(DataOptions) if each.name in given}
            )
            function(source=source, **given)

        return options(with_data)

    return decorate
