"""What the numbers mean. Pure: arrays and numbers in, numbers out; nothing here knows a runtime or OpenTelemetry."""
