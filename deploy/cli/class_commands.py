"""The options of ``lookalike train`` that say what the classes are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lookalike.trainer.data.dataset import Dataset

__all__ = ["Command", "all_of", "class_options", "with_classes"]

Command = Callable[..., Any]


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return several options as one decorator, in the order in which ``--help`` lists them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def class_options(default: str) -> Callable[[Command], Command]:
    """Return the options that say what the classes are."""
    return all_of(
        click.option(
            "--classes",
            default=default,
            show_default=True,
            type=click.Choice(("subfolder", "none")),
            help="subfolder: a folder's subfolders are classes, split by picture; none: they are people.",
        ),
        click.option(
            "--class-attribute", metavar="NAME", help="lfw: two classes, with this attribute and without."
        ),
    )


def with_classes(dataset: Dataset, classes: str, attribute: str | None) -> Dataset:
    """Sort a data set into classes as ``--classes`` and ``--class-attribute`` say.

    Raises:
        OptionError: an attribute that there is none of.
        DataError: subfolders that cannot be classes.
    """
    from lookalike.trainer.data.labels import by_attribute, by_subfolder

    if attribute is not None:
        return by_attribute(dataset, attribute)
    return by_subfolder(dataset) if classes == "subfolder" else dataset
