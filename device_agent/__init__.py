"""The program a device runs; importable without torch."""

import os

# ONNX Runtime's wheels look up their maker's hosts, and keep an id of the machine in ~/.cache,
# unless they are told not to before they are loaded. Only this package loads them.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
