"""What the user can set, from `QUANTMON_*` variables and from a TOML file with sections per model."""

from __future__ import annotations

from .loading import load_settings
from .records import ModelSettings, Settings, SpanMode

__all__ = ["ModelSettings", "Settings", "SpanMode", "load_settings"]
