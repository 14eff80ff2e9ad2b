"""Moonshine: a small encoder-decoder that reads the waveform, of any length (arXiv:2410.15608)."""
