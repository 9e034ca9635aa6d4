"""The networks, as torch modules."""

from lookalike.trainer.models.autoencoder import AE, principal_axes
from lookalike.trainer.models.classifier import Classifier, ClassifierSpec
from lookalike.trainer.models.denoiser import (
    CELL,
    SIZE_MULTIPLE,
    UNIT,
    DenoiserNet,
    NoiseEstimator,
    reflect_pad,
)
from lookalike.trainer.models.descriptor import Descriptor, DescriptorSpec
from lookalike.trainer.models.face_model import FaceModel
from lookalike.trainer.models.identity import CosineClassifier, Identity, IdentitySpec
from lookalike.trainer.models.texture import TextureDescriptor, TextureSpec
from lookalike.trainer.models.vae import CVAE, VAE, to_pixels

__all__ = [
    "AE",
    "CELL",
    "CVAE",
    "SIZE_MULTIPLE",
    "UNIT",
    "VAE",
    "Classifier",
    "ClassifierSpec",
    "CosineClassifier",
    "DenoiserNet",
    "Descriptor",
    "DescriptorSpec",
    "FaceModel",
    "Identity",
    "IdentitySpec",
    "NoiseEstimator",
    "TextureDescriptor",
    "TextureSpec",
    "principal_axes",
    "reflect_pad",
    "to_pixels",
]
