"""Transcripts to pseudo-labels."""
