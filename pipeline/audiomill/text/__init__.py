"""Normalisation, scoring and subtitles. No storage, no audio."""
