"""The observation from start to exit, in real processes, and its own failures."""
