"""Generating, interpolating, reconstructing and editing images."""
