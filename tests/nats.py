"""Hand-made models whose likelihood is known: deviations beside the means of latents. Not a test."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lookalike.encoder.bundle.bundle import Bundle, Golden
from lookalike.encoder.bundle.latent_prior import Sampling
from lookalike.encoder.runtime.model import Model
from tests.handmade import CLASSES, Z, make_digits
from tests.models import save_again


def variational(
    folder: Path,
    *,
    kind: Literal["vae", "cvae"],
    classes: tuple[str, ...] = CLASSES,
    sampling: Sampling | None = None,
    deviations: bool = True,
) -> Bundle:
    """A model whose likelihood is known: each number of a latent lights pixels of its own.

    Of digits that are half on, the mean of q(z|x) is near the true one; its deviation is 0.2 everywhere.
    """
    bundle = make_digits(folder, kind=kind, classes=classes, sampling=sampling)
    spec, graphs = bundle.spec, {"decoder": bundle.graph("decoder")}
    encoder = onnx.load_from_string(bundle.graph("encoder"))
    held: dict[str, NDArray[np.generic]] = {
        "nearly": np.array([2] * Z + [1] * (spec.latent - Z), np.float32),
        "half": np.array([1] * Z + [0] * (spec.latent - Z), np.float32),
        "places": np.arange(Z),
        "nothing": np.zeros(1, np.float32),
        "spread": np.full(1, 0.2, np.float32),
    }
    encoder.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    encoder.graph.node[-1].output[0] = "raw"
    encoder.graph.node.extend(
        [
            helper.make_node("Mul", ["raw", "nearly"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "half"], ["latent"]),
            helper.make_node("Gather", ["latent", "places"], ["mean_of_z"], axis=1),
            helper.make_node("Mul", ["mean_of_z", "nothing"], ["zero"]),
            helper.make_node("Add", ["zero", "spread"], ["deviation"]),
        ]
    )
    if deviations:
        encoder.graph.output.append(helper.make_tensor_value_info("deviation", TensorProto.FLOAT, ["N", Z]))
    onnx.checker.check_model(encoder)
    graphs["encoder"] = encoder.SerializeToString()
    session = ort.InferenceSession(graphs["encoder"], providers=["CPUExecutionProvider"])
    latents = session.run(["latent"], {"pixels": bundle.golden.pixels})[0]
    drawn = Model(bundle).decode(latents)
    golden = Golden(bundle.golden.pixels, latents, drawn)
    return save_again(bundle, folder, graphs=graphs, golden=golden, sampling=sampling)
