"""ONNX Runtime: how it is patched, read and ended."""
