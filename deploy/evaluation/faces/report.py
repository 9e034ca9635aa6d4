"""What was measured of faces in photographs, as tables and as a contact sheet."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lookalike.deploy.evaluation.faces.measure import FaceReport
from lookalike.encoder.detect import LFW_FRAME, Face, cut_faces
from lookalike.encoder.images import Tile, contact_sheet

_BOX: Final = (255, 196, 0)
_SHOWN: Final = 384
"""Side in pixels that a photograph is drawn at."""


def face_lines(report: FaceReport) -> str:
    """Return the tables of a report."""
    count, recall = report.recall()
    lines = [f"{'faces found at the threshold of indexing':<42} {'photographs':>11} {'recall':>7}"]
    lines.append(f"{'all':<42} {count:>11,} {_share(recall):>7}")
    for low, high, some, found in report.recall_by_turn():
        lines.append(f"{f'turned by {low:g} to {high:g} degrees':<42} {some:>11,} {_share(found):>7}")
    for low, high, some, found in report.recall_by_width():
        name = f"{low:g} to {high:g} px wide" if high < 1000 else f"{low:g} px wide or more"
        lines.append(f"{name:<42} {some:>11,} {_share(found):>7}")
    tried, quarter, half = report.sideways
    lines.append(f"{'photograph turned by 90 degrees':<42} {tried:>11,} {_share(quarter):>7}")
    lines.append(f"{'photograph turned by 180 degrees':<42} {tried:>11,} {_share(half):>7}")
    without, false = report.false_faces
    lines += ["", f"photographs without a face: {without:,}, faces found there: {false:,}"]
    landmarks = report.landmarks()
    if landmarks is not None:
        one, two, worst = landmarks
        lines.append(
            "landmarks, distance to those on the undisturbed image in eye distances, median: "
            f"{one:.3f} with one look, {two:.3f} with two (95 % below {worst:.3f})"
        )
    lines += ["", f"{'Recall@1 of ' + f'{report.gallery:,} others':<27} {'all':>6} {'0-5°':>6} {'20-30°':>6}"]
    lines += [
        f"{row.query:<27} {_share(row.all):>6} {_share(row.upright):>6} {_share(row.turned):>6}"
        for row in report.search
    ]
    return "\n".join(lines)


def face_sheet(report: FaceReport, *, columns: int = 6) -> NDArray[np.uint8]:
    """Return a contact sheet of the photographs that were kept, with the faces, uint8 (H, W, 3)."""
    kept = [each for each in report.observations if each.photograph is not None]
    rows: list[list[Tile]] = []
    labels: list[str] = []
    for start in range(0, len(kept), columns):
        photographs, faces = [], []
        for each in kept[start : start + columns]:
            pixels, face = each.photograph or (np.zeros((1, 1, 3), np.uint8), None)
            photographs.append(Tile(pixels=_with_box(pixels, face)))
            cut = None if face is None else cut_faces(pixels, [face], LFW_FRAME, 128, margin=0.25)[0]
            caption = f"{each.made.degrees:+.0f}°, {each.width:.0f} px"
            faces.append(Tile(pixels=cut, caption=caption, subcaption="" if face else "no face found"))
        rows += [photographs, faces]
        labels += ["photograph", "face"]
    return contact_sheet(rows, title="Faces found in made photographs", row_labels=labels, side=160)


def _with_box(pixels: NDArray[np.uint8], face: Face | None) -> NDArray[np.uint8]:
    """Return a photograph in small, with the box of its face."""
    image = Image.fromarray(pixels)
    image.thumbnail((_SHOWN, _SHOWN))
    if face is not None:
        left, top, across, down = face.box
        corners = (left, top), (left + across, top + down)
        ImageDraw.Draw(image).rectangle(
            [(x * image.width, y * image.height) for x, y in corners], outline=_BOX, width=4
        )
    return np.array(image, np.uint8)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
