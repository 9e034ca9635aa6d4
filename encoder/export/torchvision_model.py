"""A classification network of torchvision as ONNX: what it computes before its last layer. Needs [train].

Legend: N images, S side of its input, D features.
"""

from __future__ import annotations

import copy
import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lookalike.encoder.errors import (
    InvalidArgumentError,
    MissingExtraError,
    OnnxImportError,
    one_line,
    printable,
)
from lookalike.encoder.export.onnx_graph import Normalization
from lookalike.encoder.export.preprocessing import Preprocessing
from lookalike.encoder.images import Crop, Resampling

PREFIX: Final = "torchvision:"
_OPSET: Final = 18
_RESAMPLING: Final[dict[str, Resampling]] = {
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
}


@dataclass(frozen=True, slots=True)
class TorchvisionExport:
    """A network of torchvision, exported.

    Attributes:
        file: ONNX; its input is float32 (N, 3, S, S), its output (N, D).
        preprocessing: As the metadata of the weights say.
        weights: Name of the weights.
    """

    file: Path
    preprocessing: Preprocessing
    weights: str


def export_torchvision(name: str, folder: Path, *, weights: Path | None = None) -> TorchvisionExport:
    """Export a classification network without its last layer, which gives the classes.

    The weights are the best ones that torchvision names for it. Unless a file is given they are downloaded,
    and checked by the digest in their name.

    Args:
        name: As torchvision calls it, such as ``resnet50``.
        folder: Where the ONNX file goes.
        weights: File with these weights (a state dict); nothing in it is executed.

    Raises:
        MissingExtraError: torch or torchvision is not installed.
        InvalidArgumentError: There is no such network, or none with weights.
        OnnxImportError: The weights cannot be downloaded or do not fit, or torch cannot export the network.
    """
    if any(importlib.util.find_spec(each) is None for each in ("torch", "torchvision", "onnxscript")):
        raise MissingExtraError(
            "importing from torchvision needs PyTorch and torchvision; pip install 'lookalike[train]'"
        )
    import torch
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InvalidArgumentError(
            f"torchvision has no classification network '{printable(name)}'; it has {', '.join(known)}"
        )
    chosen: Any = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=None, **_options(name)).eval()
    try:
        network.load_state_dict(_state(chosen, weights))
    except RuntimeError as error:
        raise OnnxImportError(
            f"these weights do not fit torchvision:{name} ({one_line(error)[:200]}); name those of {chosen}"
        ) from error
    features = _without_last_layer(network, len(chosen.meta["categories"]))
    preprocessing = _preprocessing(chosen.transforms())
    side = _side(chosen.transforms())
    file = folder / f"{name}.onnx"
    try:
        program = torch.onnx.export(
            features,
            (torch.zeros(2, 3, side, side),),
            input_names=["image"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        program.save(file)  # type: ignore[union-attr]  # with dynamo there is a program
    except Exception as error:  # torch raises many kinds
        raise OnnxImportError(
            f"torchvision:{name} cannot be exported ({one_line(error)[:200]}); choose another network"
        ) from error
    return TorchvisionExport(file, preprocessing, str(chosen))


def _options(name: str) -> dict[str, Any]:
    """Return how the network is built so that the weights fit: two were trained with more than the rest."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": True, "transform_input": True, "init_weights": False}
    return {}


def _state(chosen: Any, weights: Path | None) -> dict[str, Any]:
    """Return the weights, from a file or downloaded."""
    import torch

    try:
        if weights is None:
            state: dict[str, Any] = chosen.get_state_dict(progress=False, check_hash=True)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError) as error:
        what = f"{chosen} from {chosen.url}" if weights is None else printable(str(weights))
        raise OnnxImportError(
            f"weights {what} cannot be read ({one_line(error)[:200]}); name a file of them with --weights"
        ) from error
    return state


def _without_last_layer(network: Any, classes: int) -> Any:
    """Return the network without the last layer that gives as many numbers as there are classes."""
    from torch import nn

    found = [
        name
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == classes)
        or (isinstance(module, nn.Conv2d) and module.out_channels == classes)
    ]
    found = [name for name in found if not name.lower().startswith("aux")]
    if not found:
        raise OnnxImportError("this network has no last layer of classes; choose another")
    features = copy.deepcopy(network)
    features.set_submodule(found[-1], nn.Identity())
    return features


def _side(transforms: Any) -> int:
    (side,) = transforms.crop_size
    return int(side)


def _preprocessing(transforms: Any) -> Preprocessing:
    """Read how images are prepared from the metadata of weights."""
    side, (shortest,) = _side(transforms), transforms.resize_size
    filter_name = transforms.interpolation.value
    if filter_name not in _RESAMPLING:
        raise OnnxImportError(f"these weights resize images with {filter_name}; choose other ones")
    return Preprocessing(
        normalization=Normalization(
            mean=tuple(255 * float(value) for value in transforms.mean),
            std=tuple(255 * float(value) for value in transforms.std),
        ),
        size=side,
        crop=Crop(fraction=min(1.0, side / shortest)),
        resampling=_RESAMPLING[filter_name],
    )
