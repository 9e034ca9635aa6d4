"""The folders of Hugging Face's ONNX exports: which file is the network, and what lies beside it.

::

    clip-vit-base-patch32/
      preprocessor_config.json     how images are prepared
      tokenizer.json               for a text tower; tokenizer_config.json may say how long texts may be
      onnx/vision_model.onnx       or onnx/model.onnx, or either without onnx/
      onnx/text_model.onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import OnnxImportError, printable
from lookalike.encoder.export.preprocessing import CONFIG, Preprocessing, read_config
from lookalike.encoder.export.text_tower import TextFiles

_NETWORKS: Final = ("onnx/vision_model.onnx", "vision_model.onnx", "model.onnx", "onnx/model.onnx")
_TEXTS: Final = ("onnx/text_model.onnx", "text_model.onnx")


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """What was found in a folder.

    Attributes:
        network: ONNX, from image to vector.
        preprocessing: How images are prepared for it; None: the folder does not say it.
        text: Its text tower; None: it has none.
    """

    network: Path
    preprocessing: Preprocessing | None
    text: TextFiles | None

    @classmethod
    def open(cls, folder: Path) -> ExportFolder:
        """Look into a folder.

        Raises:
            OnnxImportError: It holds no network, or ``preprocessor_config.json`` is not understood.
        """
        network = _first(folder, _NETWORKS)
        if network is None:
            raise OnnxImportError(
                f"{printable(str(folder))}: holds no network; looked for {', '.join(_NETWORKS)}; name the "
                ".onnx file itself"
            )
        config = _first(folder, (CONFIG,))
        return cls(network, None if config is None else read_config(config), _text(folder))


def _text(folder: Path) -> TextFiles | None:
    graph, tokenizer = _first(folder, _TEXTS), _first(folder, ("tokenizer.json",))
    if graph is None or tokenizer is None:
        return None
    return TextFiles(graph, tokenizer, _first(folder, ("tokenizer_config.json",)))


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
