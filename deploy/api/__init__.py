"""Similar-image search that trains its own encoder.

::

    import lookalike as la

    model = la.load_model("faces")                      # a shipped model, or a model's folder
    store = la.open_store(".lookalike")                 # a folder, or http://host:6333
    la.index("photos/", model=model, store=store, collection="family")
    for hit in la.Searcher(store, "family").search("me.jpg", k=10):
        print(hit.score, hit.file)
    la.compare(model, "me.jpg", "you.jpg").probability
    la.duplicates(store, "family"); la.cluster(store, "family"); la.make_map(store, "family").save("map.html")
    la.generate(model, n=16)                            # shows itself in a notebook
    la.edit(model, "me.jpg", {"Smiling": 2})
    la.denoise("scan.png").save("denoised.png")
    la.faces("group.jpg").cut(size=256)                 # the faces of a photograph, upright

An image is a path, the bytes of an image file, a PIL image, or a NumPy array of any size: (H, W), (H, W, 1)
    or
(H, W, 3), uint8 or float in [0, 1]. Whatever goes wrong on purpose is a :class:`LookalikeError`.

Names are loaded when they are first used, so ``import lookalike`` itself loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike._collections import cluster, duplicates, items, make_map, merge_clusters, name_cluster
    from lookalike._faces import faces
    from lookalike._models import (
        decode,
        denoise,
        edit,
        embed,
        encode,
        generate,
        interpolate,
        load_denoiser,
        load_model,
        reconstruct,
    )
    from lookalike._search import Searcher, compare, index
    from lookalike.encoder.errors import LookalikeError
    from lookalike.indexer.open import open_store

    __version__: str

__all__ = [
    "LookalikeError",
    "Searcher",
    "__version__",
    "cluster",
    "compare",
    "decode",
    "denoise",
    "duplicates",
    "edit",
    "embed",
    "encode",
    "faces",
    "generate",
    "index",
    "interpolate",
    "items",
    "load_denoiser",
    "load_model",
    "make_map",
    "merge_clusters",
    "name_cluster",
    "open_store",
    "reconstruct",
]

_MODULES = {
    "LookalikeError": "lookalike.encoder.errors",
    "Searcher": "lookalike._search",
    "cluster": "lookalike._collections",
    "compare": "lookalike._search",
    "duplicates": "lookalike._collections",
    "faces": "lookalike._faces",
    "index": "lookalike._search",
    "items": "lookalike._collections",
    "make_map": "lookalike._collections",
    "merge_clusters": "lookalike._collections",
    "name_cluster": "lookalike._collections",
    "open_store": "lookalike.indexer.open",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("lookalike")
    else:
        value = getattr(import_module(_MODULES.get(name, "lookalike._models")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
