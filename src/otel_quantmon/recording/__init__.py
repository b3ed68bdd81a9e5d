"""What runs on the metric reader's thread: finished calls are added up, and gauges are read."""
