"""GLM-ASR: a Whisper-like encoder with rotary positions, a projector, a Llama."""
