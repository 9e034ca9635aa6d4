"""Denoising image files of any size."""
