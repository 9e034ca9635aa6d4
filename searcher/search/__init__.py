"""Searching collections by images."""
