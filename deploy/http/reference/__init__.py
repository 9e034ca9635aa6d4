"""The description of the API: OpenAPI for programs, a page for people."""

from lookalike.deploy.http.reference.description import describe
from lookalike.deploy.http.reference.page import STYLE, reference_page

__all__ = ["STYLE", "describe", "reference_page"]
