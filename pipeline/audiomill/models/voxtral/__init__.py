"""Voxtral: Whisper's encoder on windows of 30 s, a projector, a Llama."""
