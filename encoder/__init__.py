"""The portable model: pixels, bundle, ONNX export and the onnxruntime model."""
