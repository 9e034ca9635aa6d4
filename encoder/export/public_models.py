"""Networks that others have published, to download by name: ``public_models.json`` has the list.

A file is taken only with the digest that is listed. That of sface is in its publisher's Git LFS pointer;
those of the others are what several public repositories pin. None was checked by a download. Needs the
[import] extra.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.datasets import RemoteFile, cache_folder, fetch, only_one
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.export.import_model import import_onnx
from lookalike.encoder.export.preprocessing import PRESETS
from lookalike.encoder.export.text_tower import TextFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicModel:
    """A network to download.

    Attributes:
        name: What it is called here.
        about: What it is for, in some words.
        licence: SPDX identifier of its licence.
        page: Where it is published.
        preset: How images are prepared, see :data:`~.preprocessing.PRESETS`.
        image: ONNX, from image to vector.
        text: ONNX of its text tower; None: it has none.
        tokenizer: ``tokenizer.json`` of that.
    """

    name: str
    about: str
    licence: str
    page: str
    preset: str
    image: RemoteFile
    text: RemoteFile | None = None
    tokenizer: RemoteFile | None = None

    @property
    def files(self) -> list[RemoteFile]:
        """All its files."""
        return [file for file in (self.image, self.text, self.tokenizer) if file is not None]

    @property
    def bytes(self) -> int:
        """Size of the download."""
        return sum(file.most for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: name, about, licence, page, bytes, sha256 of each file by its name."""
        values = {key: getattr(self, key) for key in ("name", "about", "licence", "page", "bytes")}
        return values | {"sha256": {file.name: file.digest for file in self.files}}


def public_models() -> dict[str, PublicModel]:
    """Return the networks that can be downloaded, by name."""
    listed = json.loads((files("lookalike.encoder.export") / "public_models.json").read_bytes())
    return {each["name"]: _model(each) for each in listed}


def _model(values: Mapping[str, Any]) -> PublicModel:
    remote = {
        kind: RemoteFile(
            name=values[kind]["name"],
            urls=tuple(values[kind]["urls"]),
            sha256=values[kind]["sha256"],
            most=values[kind]["bytes"],
        )
        for kind in ("image", "text", "tokenizer")
        if kind in values
    }
    return PublicModel(**{**values, **remote})


def add_model(name: str, folder: Path, *, progress: bool = False) -> Bundle:
    """Download a public network and write it as the bundle ``folder``.

    The files come from the addresses of the list or from ``LOOKALIKE_MIRRORS``; an interrupted download goes
    on where it stopped. They are removed once the bundle is written.

    Args:
        name: Of :func:`public_models`.
        folder: Where the bundle goes.
        progress: Show bars on stderr, if that is a terminal.

    Raises:
        InvalidArgumentError: There is no network of this name, or something else than a bundle is at
            ``folder``.
        DataError: No server has the right files.
        OnnxImportError: The network cannot be used here.
        MissingExtraError: It takes text, and the extra ``text`` is not installed.
    """
    known = public_models()
    if name not in known:
        raise InvalidArgumentError(
            f"no public model '{printable(name)}'; there are {', '.join(known)}; import others with "
            "lookalike models import"
        )
    model, place = known[name], cache_folder() / "models" / name
    preset = PRESETS[model.preset]
    with only_one(place):
        path = {file.name: fetch(file, place, progress=progress) for file in model.files}
        text = None
        if model.text is not None and model.tokenizer is not None:
            text = TextFiles(path[model.text.name], path[model.tokenizer.name])
        bundle = import_onnx(
            path[model.image.name],
            folder,
            size=None,
            normalization=preset.normalization,
            crop=preset.crop,
            mirror=preset.mirror,
            frame=preset.frame,
            usual_size=preset.size,
            resampling=preset.resampling,
            text=text,
            source=model.page,
        )
    shutil.rmtree(place, ignore_errors=True)
    return bundle
