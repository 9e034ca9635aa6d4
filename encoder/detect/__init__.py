"""Faces in whole photographs: found, turned upright, cut out."""

from lookalike.encoder.detect.align import ARCFACE_FRAME, LFW_FRAME, Frame, Similarity, cut_out
from lookalike.encoder.detect.face import Face, place_in_words
from lookalike.encoder.detect.finder import (
    INDEX_THRESHOLD,
    MIN_WIDTH,
    QUERY_THRESHOLD,
    FaceFinder,
    choose_face,
    cut_faces,
    face_finder,
    labeled_face,
)
from lookalike.encoder.detect.framing import Faces, Framing, cut_for_model, parse_framing, read_faces
from lookalike.encoder.detect.paste import ChosenFace, CutFace, read_face

__all__ = [
    "ARCFACE_FRAME",
    "INDEX_THRESHOLD",
    "LFW_FRAME",
    "MIN_WIDTH",
    "QUERY_THRESHOLD",
    "ChosenFace",
    "CutFace",
    "Face",
    "FaceFinder",
    "Faces",
    "Frame",
    "Framing",
    "Similarity",
    "choose_face",
    "cut_faces",
    "cut_for_model",
    "cut_out",
    "face_finder",
    "labeled_face",
    "parse_framing",
    "place_in_words",
    "read_face",
    "read_faces",
]
