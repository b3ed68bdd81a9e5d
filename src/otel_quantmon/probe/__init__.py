"""What runs on the caller's thread: a probe for each loaded model counts and times calls, and makes their spans."""
