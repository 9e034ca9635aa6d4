"""The portable model: images, bundles, ONNX export and inference with onnxruntime."""

import os

# onnxruntime 1.32 sends telemetry by default, with a device id in the home folder. Disabled here, before any
# module imports it; set "0" to enable it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
