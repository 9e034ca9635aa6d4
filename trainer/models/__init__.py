"""The networks, as torch modules."""

from lookalike.trainer.models.autoencoder import AE, principal_axes
from lookalike.trainer.models.classifier import Classifier, ClassifierSpec
from lookalike.trainer.models.denoiser import SIZE_MULTIPLE, BlindDenoiser, DenoiserOutput
from lookalike.trainer.models.descriptor import Descriptor, DescriptorSpec
from lookalike.trainer.models.face_model import FaceModel
from lookalike.trainer.models.identity import CosineClassifier, Identity, IdentitySpec
from lookalike.trainer.models.vae import CVAE, VAE, to_pixels

__all__ = [
    "AE",
    "CVAE",
    "SIZE_MULTIPLE",
    "VAE",
    "BlindDenoiser",
    "Classifier",
    "ClassifierSpec",
    "CosineClassifier",
    "DenoiserOutput",
    "Descriptor",
    "DescriptorSpec",
    "FaceModel",
    "Identity",
    "IdentitySpec",
    "principal_axes",
    "to_pixels",
]
