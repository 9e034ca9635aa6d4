"""The HTTP service and its web page."""

from lookalike.deploy.http.app import create_app
from lookalike.deploy.http.server import run
from lookalike.deploy.http.settings import KEY_VARIABLE, READ_KEY_VARIABLE, Settings

__all__ = ["KEY_VARIABLE", "READ_KEY_VARIABLE", "Settings", "create_app", "run"]
