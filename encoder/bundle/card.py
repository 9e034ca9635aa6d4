"""The card of a model: what ``bundle.json`` says of it, as a page for people (Markdown).

Its head is the metadata that Hugging Face's hub reads
(https://huggingface.co/docs/hub/model-cards#model-card-metadata).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lookalike.encoder.bundle.spec import BundleSpec, DenoiserSpec, Manifest
from lookalike.encoder.errors import printable

CARD: Final = "README.md"
"""Where hubs look for it."""
_KINDS: Final = {
    "ae": "An autoencoder: images become latents to search by, and latents become images again.",
    "vae": "A variational autoencoder: its latents can be searched, and are drawn from N(0, I) to generate.",
    "cvae": "A conditional variational autoencoder: it generates images of a class, and finds that of one.",
    "encoder": "An encoder that was imported: images become vectors to search by.",
    "denoiser": "A denoiser: it estimates the noise of an image at each place, and removes it.",
}
_TASKS: Final = {
    "ae": "image-feature-extraction",
    "vae": "unconditional-image-generation",
    "cvae": "unconditional-image-generation",
    "encoder": "image-feature-extraction",
    "denoiser": "image-to-image",
}
_LABELS: Final = {
    "none": "no labels",
    "person": "the names of the people in the images",
    "class": "the classes of the images",
    "unknown": "it is not known which labels",
}
_ABOUT_DATA: Final = {
    "lfw": "Labeled Faces in the Wild: mostly men, mostly from news photographs of the early 2000s. Expect "
    "it to work worse for everyone else.",
    "mnist": "MNIST: handwritten digits of 28x28 pixels, white on black. It knows nothing else.",
}
_NOT_IDENTITY: Final = (
    "Similarity is not proof of identity: do not use it to identify, accuse, admit or refuse anyone."
)
_MOST_CLASSES: Final = 20
_LEFT_OUT: Final = "`bundle.json` has the rest."


def model_card(name: str, manifest: Manifest, *, licence: str | None = None) -> str:
    """Return the card of a model, Markdown.

    Args:
        name: What the model is called.
        manifest: Its ``bundle.json``.
        licence: SPDX identifier in lower case; None: it is not known, and the card says nothing of one.
    """
    spec = manifest.spec
    parts = [
        "\n".join(_head(spec, licence)),
        f"# {name}\n\n{_KINDS[spec.kind]}",
        "## Use it\n\n```console\n" + "\n".join(_uses(name, spec)) + "\n```",
        "## What it is\n\n" + _table(("", ""), _facts(manifest)),
        "## Training\n\n" + "\n\n".join(_training(spec)),
        "## Figures\n\n" + "\n\n".join(_figures(spec.figures)),
        "## Limits\n\n" + "\n".join(f"- {each}" for each in _limits(spec)),
        "## Files\n\nNothing in them is executed.\n\n"
        + _table(
            ("file", "SHA-256"), ((f"`{file}`", f"`{digest}`") for file, digest in manifest.digests.items())
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _head(spec: BundleSpec | DenoiserSpec, licence: str | None) -> Iterator[str]:
    yield "---"
    if licence is not None:
        yield f"license: {licence}"
    yield "library_name: lookalike"
    yield f"pipeline_tag: {_TASKS[spec.kind]}"
    yield "tags: [lookalike, onnx]"
    yield "---"


def _uses(name: str, spec: BundleSpec | DenoiserSpec) -> Iterator[str]:
    """Yield commands that the model is for."""
    if isinstance(spec, DenoiserSpec):
        yield f"lookalike denoise photos/ --model {name} --out clean/"
        return
    faces = " --faces" if spec.frame is not None else ""
    yield f"lookalike index photos/ --model {name}{faces} --collection photos"
    yield "lookalike search me.jpg --collection photos"
    if spec.kind != "encoder":
        yield f"lookalike generate --model {name} --out generated.png"


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    spec = manifest.spec
    yield "model_id", f"`{manifest.model_id}`"
    if isinstance(spec, DenoiserSpec):
        low, high = (255 * sigma for sigma in spec.deviations)
        yield "input", "images of any size, gray or RGB"
        yield "noise", f"sigma {low:g} to {high:g} (of 255)"
        return
    image = spec.image
    yield (
        "input",
        f"{image.size}x{image.size} pixels, {'RGB' if image.channels == 3 else 'gray'}, crop {image.crop}",
    )
    yield (
        "vectors",
        f"{spec.embedding} numbers, compared by the cosine"
        + ", averaged with the mirror image" * spec.mirror,
    )
    if spec.kind != "encoder":
        yield "latent", f"{spec.latent} numbers"
    if spec.classes:
        more = f" and {len(spec.classes) - _MOST_CLASSES} more" if len(spec.classes) > _MOST_CLASSES else ""
        yield "classes", ", ".join(map(_cell, spec.classes[:_MOST_CLASSES])) + more
    if spec.frame is not None:
        yield "faces", f"cut out of photographs for it: frame {spec.frame}"
    if spec.text is not None:
        yield "text", f"up to {spec.text.length} tokens"


def _training(spec: BundleSpec | DenoiserSpec) -> Iterator[str]:
    training = spec.training
    data = training.get("data")
    if data is None:
        yield f"How it was trained is not recorded here. {_LEFT_OUT}"
    else:
        counts = training.get("images", {})
        numbers = ", ".join(f"{count:,} {part.replace('_', ' ')}" for part, count in counts.items())
        beside = training.get("photographs")
        yield (
            f"Data: `{_cell(str(data))}`"
            + (f" ({numbers} images)" if numbers else "")
            + (f", and {beside} photographs." if beside else ".")
        )
    if isinstance(spec, BundleSpec):
        yield f"Used of their labels: {_LABELS[spec.labels]}."
    versions = ", ".join(
        f"{each} {training[each]}" for each in ("python", "torch", "onnxruntime") if each in training
    )
    if versions:
        yield f"Made with {_cell(versions)}. {_LEFT_OUT}"


def _figures(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the plain values, then one of each list of rows."""
    tables = {
        key: rows
        for key, rows in figures.items()
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
    }
    plain = {key: value for key, value in figures.items() if key not in tables}
    if not figures:
        yield "None were measured."
    if plain:
        yield _table(
            ("figure", "value"), ((f"`{_cell(key)}`", _value(value)) for key, value in plain.items())
        )
    for key, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        yield f"`{_cell(key)}`:\n\n" + _table(
            [f"`{_cell(each)}`" for each in columns],
            ([_value(row.get(each, "")) for each in columns] for row in rows),
        )


def _limits(spec: BundleSpec | DenoiserSpec) -> Iterator[str]:
    if isinstance(spec, DenoiserSpec):
        yield "JPEG artifacts are left, and drawn or dithered images are left as they are."
        return
    data = str(spec.training.get("data", ""))
    if data in _ABOUT_DATA:
        yield f"Trained on {_ABOUT_DATA[data]}"
    if spec.kind != "encoder":
        yield "Images must be framed as those that it was trained on."
    if spec.labels == "person" or spec.frame is not None:
        yield _NOT_IDENTITY
    else:
        yield "A score says how similar two images are to this model, not what they show."


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _cell(", ".join(f"{key} {_value(each)}" for key, each in value.items()))
    return _cell(f"{value:,}" if type(value) is int else str(value))


def _cell(text: str) -> str:
    """Return text that stays in its cell, and is no markup."""
    return " ".join(printable(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'").split())


def _table(head: Any, rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
