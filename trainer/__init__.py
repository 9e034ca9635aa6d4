"""Trains the autoencoders in PyTorch and writes them as bundles."""
