"""Names that a file may hold, and how long is looked for ones that harm."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SAME_DIRECTORY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
