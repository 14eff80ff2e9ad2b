"""Whisper: windows of log-mel in, text with times out."""
