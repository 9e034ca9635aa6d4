"""Image files to pixels and back, noise, and contact sheets."""
