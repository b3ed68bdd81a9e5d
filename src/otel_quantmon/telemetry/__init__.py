"""The only room that touches the OpenTelemetry API: instruments, spans and their names."""
