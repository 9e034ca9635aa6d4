"""Train models from images and write them as bundles."""
