"""The settings: their values, their sources, their descriptions."""
