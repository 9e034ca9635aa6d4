"""Where bundles are: folders, the shipped ones by name, and what a new bundle may replace."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from lookalike.encoder.bundle.attributes import ATTRIBUTES
from lookalike.encoder.bundle.spec import KNOWN_FILES
from lookalike.encoder.errors import BundleNotFoundError, InvalidArgumentError
from lookalike.encoder.text import one_line, printable

CALIBRATION: Final = "calibration.json"
"""Optional file in a bundle's folder, not part of the model."""
SIDECARS: Final = (CALIBRATION, ATTRIBUTES)
"""All optional files in a bundle's folder."""


def shipped_bundles() -> dict[str, Path]:
    """Return the bundles that come with the package, name to folder."""
    folder = Path(str(files("lookalike.encoder") / "shipped"))
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/bundle.json"))}


def is_shipped(folder: Path) -> bool:
    """Whether a resolved folder is one of the shipped bundles."""
    shipped = shipped_bundles().get(folder.name)
    return shipped is not None and shipped.resolve() == folder


def resolve_model(where: str | os.PathLike[str]) -> Path:
    """Return the resolved folder of a bundle, given by path or by the name of a shipped one.

    Raises:
        BundleNotFoundError: Neither a folder with a bundle.json nor a shipped name.
    """
    folder = Path(where)
    try:
        if (folder / "bundle.json").is_file():
            return folder.resolve()
        is_folder = folder.is_dir()
    except OSError as error:
        raise BundleNotFoundError(
            f"model {printable(str(where))} cannot be opened ({error.strerror})"
        ) from error
    shipped = shipped_bundles()
    if str(where) in shipped:
        return shipped[str(where)].resolve()
    names = ", ".join(shipped) or "none"
    if is_folder:
        raise BundleNotFoundError(
            f"no model in folder {printable(str(where))}: it has no bundle.json; shipped models: {names}"
        )
    raise BundleNotFoundError(
        f"no model '{printable(str(where))}': no such folder and no such shipped model; shipped models: "
        f"{names}"
    )


def absolute_path(folder: str | os.PathLike[str]) -> Path:
    """Return an absolute path without links.

    Raises:
        InvalidArgumentError: There is none.
    """
    try:
        return Path(folder).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: circular links
        raise InvalidArgumentError(
            f"{printable(str(folder))} cannot be the folder of a bundle ({one_line(error)})"
        ) from error


def check_target(target: Path) -> None:
    """Refuse to replace anything but a bundle, including a bundle folder that holds other files.

    Raises:
        InvalidArgumentError: Something else than a bundle is at ``target``.
    """
    try:
        names = {path.name for path in target.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidArgumentError(
            f"{printable(str(target))} cannot be the folder of a bundle ({error.strerror}); choose another"
        ) from error
    other = names if "bundle.json" not in names else names - KNOWN_FILES - {"bundle.json", *SIDECARS}
    if other:
        raise InvalidArgumentError(
            f"only a bundle is replaced, {printable(str(target))} also holds {printable(min(other))}; "
            "choose another folder"
        )
