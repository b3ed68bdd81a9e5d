"""``python -m otel_quantmon.cli``: the same as ``quantmon``."""

from __future__ import annotations

import sys

from otel_quantmon.cli.command import main

sys.exit(main())
