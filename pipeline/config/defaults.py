"""Numbers that more than one place needs."""

WINDOW_S = 30.0
"""Whisper's window, and the longest segment of other models, in seconds."""
REPEATING_RATIO = 2.4
"""Texts that zlib makes so much shorter repeat themselves. Source: Whisper's `compression_ratio_threshold`."""
