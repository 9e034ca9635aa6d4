"""Torch modules and imported ONNX networks to bundles."""
