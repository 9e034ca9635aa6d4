"""``lookalike evaluate``: measure models, collections and vectors of any origin."""

from lookalike.deploy.cli.evaluate.attributes import attributes
from lookalike.deploy.cli.evaluate.compare import clustering, retrieval, verification
from lookalike.deploy.cli.evaluate.denoising import denoising
from lookalike.deploy.cli.evaluate.faces import faces
from lookalike.deploy.cli.evaluate.generation import generation
from lookalike.deploy.cli.evaluate.group import evaluate, image_file
from lookalike.deploy.cli.evaluate.queries import groups, small_faces

__all__ = [
    "attributes",
    "clustering",
    "denoising",
    "evaluate",
    "faces",
    "generation",
    "groups",
    "image_file",
    "retrieval",
    "small_faces",
    "verification",
]
