"""Calibration and attributes, fitted to embeddings with numpy."""
