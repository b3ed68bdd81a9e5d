"""The page of a run: served on loopback while it goes on, or written as one file that needs no server.

`views` makes what it shows, as JSON; `application` serves that, `report` writes it. What a browser runs is in `static`,
and the charts are plotly's, whose JavaScript its Python package carries.
"""

from otel_quantmon.desk.page.application import Page
from otel_quantmon.desk.page.report import write_report

__all__ = ["Page", "write_report"]
