"""What is loaded: its description, its identity, and readers of model files."""
