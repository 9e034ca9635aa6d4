"""How answers are sent: compressed, without a body, or not at all where the client has them."""

from lookalike.deploy.http.representation.compression import Compression
from lookalike.deploy.http.representation.etags import has_current
from lookalike.deploy.http.representation.head import without_body

__all__ = ["Compression", "has_current", "without_body"]
