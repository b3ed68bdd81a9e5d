"""The hot path: one probe per loaded model, which counts, times, and decides what is looked at."""
