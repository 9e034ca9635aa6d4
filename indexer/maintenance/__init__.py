"""Copying a collection and checking it against its files."""
