"""Nemotron 3 Diarization: which of eight speakers is heard in each frame."""
