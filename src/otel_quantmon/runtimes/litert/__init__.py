"""LiteRT's compiled models: how they are patched and read."""
