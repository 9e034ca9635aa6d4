"""Models and denoisers running on onnxruntime."""
