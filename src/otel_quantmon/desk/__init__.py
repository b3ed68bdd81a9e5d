"""The engineer's desk: what ``quantmon run`` receives, keeps and shows, with neither Collector nor backend.

Runs in the process of the command, never in the application's, and imports nothing of what runs there. Data goes
from `receiver` (OTLP over HTTP on loopback, `forward` beside it) through `ingest` into `store` (one SQLite file,
described in `schema`), and by `queries` to whoever shows it: `terminal`, and the page.
"""
