"""The way into OpenTelemetry, which nothing else imports: instruments, spans, providers and the context."""
