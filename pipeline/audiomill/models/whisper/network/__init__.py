"""Whisper's forward pass on fused weights: encoder, and a decoder whose rows come and leave."""
