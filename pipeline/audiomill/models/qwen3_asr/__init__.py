"""Qwen3-ASR: a speech tower, a projector, a Qwen3 that names the language and writes the text."""
