"""``quantmon doctor``, in four parts.

``surroundings`` looks at what is installed and set, ``watching`` at a command that runs, with ``witness`` in each of
its processes; ``report`` says it.
"""

from __future__ import annotations
