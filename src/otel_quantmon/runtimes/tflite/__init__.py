"""The TensorFlow Lite interpreter: how it is patched and read."""
