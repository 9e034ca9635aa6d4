"""Answers: similar images, reconstructions, generated images."""
