"""Where in a graph the error enters."""
