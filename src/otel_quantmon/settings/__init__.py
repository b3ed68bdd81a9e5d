"""What the user can set, from `QUANTMON_*` variables and from a TOML file with sections per model."""

from __future__ import annotations

from .kinds import REMOTE
from .loading import load_settings, read_settings
from .records import ModelSettings, Settings, SpanMode

__all__ = ["REMOTE", "ModelSettings", "Settings", "SpanMode", "load_settings", "read_settings"]
