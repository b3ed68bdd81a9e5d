"""Measures of distance, and what they need: comparison, dequantization, checks of tensors."""
