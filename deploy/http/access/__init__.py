"""Who may ask the service for what: hosts, origins and keys."""

from lookalike.deploy.http.access.checks import AccessChecks, Writing, may_write
from lookalike.deploy.http.access.keys import is_key

__all__ = ["AccessChecks", "Writing", "is_key", "may_write"]
