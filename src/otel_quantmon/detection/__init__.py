"""What decides whether something has changed: plain numbers in, judgements out.

No runtime, no OpenTelemetry, no numpy: it runs in the application's process.
"""
