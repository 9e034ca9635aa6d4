"""Where bundles stand: folders, the shipped ones by name, and what a new one may replace."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from lookalike.encoder.bundle.attributes import ATTRIBUTES
from lookalike.encoder.bundle.manifest import KNOWN_FILES
from lookalike.encoder.errors import BundleNotFoundError, InvalidArgumentError
from lookalike.encoder.text import one_line, printable

CALIBRATION: Final = "calibration.json"
"""May lie in a bundle's folder and is no part of the model."""
SIDECARS: Final = (CALIBRATION, ATTRIBUTES)
"""All that may."""


def shipped_bundles() -> dict[str, Path]:
    """Return the bundles that come with the package, name to folder."""
    shelf = Path(str(files("lookalike.encoder") / "shipped"))
    return {path.parent.name: path.parent for path in sorted(shelf.glob("*/bundle.json"))}


def is_shipped(folder: Path) -> bool:
    """Whether a resolved folder is one of the shipped bundles."""
    shipped = shipped_bundles().get(folder.name)
    return shipped is not None and shipped.resolve() == folder


def resolve_model(where: str | os.PathLike[str]) -> Path:
    """Return the resolved folder of a bundle, which may be named as a shipped one.

    Raises:
        BundleNotFoundError: neither a folder with a bundle.json nor a shipped name.
    """
    folder = Path(where)
    try:
        if (folder / "bundle.json").is_file():
            return folder.resolve()
        there = folder.is_dir()
    except OSError as error:
        raise BundleNotFoundError(
            f"model {printable(str(where))} cannot be opened ({error.strerror})"
        ) from error
    shipped = shipped_bundles()
    if str(where) in shipped:
        return shipped[str(where)].resolve()
    names = ", ".join(shipped) or "none"
    if there:
        raise BundleNotFoundError(
            f"a model is a folder with a bundle.json, {printable(str(where))} has none; shipped: {names}"
        )
    raise BundleNotFoundError(
        f"no model '{printable(str(where))}': no such folder and no shipped one; shipped: {names}"
    )


def absolute_path(folder: str | os.PathLike[str]) -> Path:
    """Return an absolute path without links.

    Raises:
        InvalidArgumentError: there can be none.
    """
    try:
        return Path(folder).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise InvalidArgumentError(
            f"no bundle can stand at {printable(str(folder))} ({one_line(error)})"
        ) from error


def check_target(target: Path) -> None:
    """Refuse to replace anything but a bundle, also one to which something else was added.

    Raises:
        InvalidArgumentError: something that is no bundle stands at ``target``.
    """
    try:
        inside = {path.name for path in target.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidArgumentError(
            f"a bundle is a folder, {printable(str(target))} cannot be one ({error.strerror}); name another"
        ) from error
    odd = inside if "bundle.json" not in inside else inside - KNOWN_FILES - {"bundle.json", *SIDECARS}
    if odd:
        raise InvalidArgumentError(
            f"a bundle replaces only a bundle, {printable(str(target))} holds {printable(min(odd))} too; "
            "name another folder"
        )
