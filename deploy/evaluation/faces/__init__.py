"""Measuring faces in whole photographs: made photographs, and what is found in them."""

from lookalike.deploy.evaluation.faces.measure import FaceReport, Observation, SearchResult, evaluate_faces
from lookalike.deploy.evaluation.faces.photographs import MadePhotograph, background_files, plan_photographs
from lookalike.deploy.evaluation.faces.report import face_lines, face_sheet

__all__ = [
    "FaceReport",
    "MadePhotograph",
    "Observation",
    "SearchResult",
    "background_files",
    "evaluate_faces",
    "face_lines",
    "face_sheet",
    "plan_photographs",
]
