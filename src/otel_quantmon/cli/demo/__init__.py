"""``quantmon demo``: a real model, quantized here, with its float original beside it, and three faults that are caught.

``magika`` makes the models, ``application`` is the ordinary program that is watched, and ``director`` runs the one and
then the other under ``quantmon run``.
"""

from __future__ import annotations
