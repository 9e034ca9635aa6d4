"""The portable model: pixels, bundle, ONNX export and the onnxruntime model."""

import os

# onnxruntime from 1.32 on reports its use to its makers unless told not to, and keeps a device id in the home
# folder. Nothing of this product goes anywhere. Set before any module here imports it; who wants it sets "0".
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
