"""Causal language models that read what an encoder heard: their layers, how they write, and how others lay them out."""
