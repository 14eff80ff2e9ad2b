"""Codebooks: reading, writing, fitting."""
