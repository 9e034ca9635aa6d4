"""Copying a collection and checking it against its files."""

from lookalike.indexer.maintenance.copy import copy_collection
from lookalike.indexer.maintenance.verify import VerifyReport, remembered_model, verify

__all__ = ["VerifyReport", "copy_collection", "remembered_model", "verify"]
