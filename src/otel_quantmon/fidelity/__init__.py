"""How far the quantized model is from its float original."""
