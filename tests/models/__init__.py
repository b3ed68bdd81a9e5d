"""What is known of a loaded model: its file, its names, the health of its graph."""
