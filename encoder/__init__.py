"""The portable model: pixels, bundle, ONNX export and the onnxruntime model."""

import os

# onnxruntime 1.32 has its makers' telemetry built in and on, with a device id in the home folder. Nothing of
# this product goes anywhere. Set before any module here imports it; who wants it sets "0".
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
