"""Threads of our own, and what holds for the whole process: forks, its end, its memory and its processor."""
