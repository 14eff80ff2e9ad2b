"""Decoding, resampling, voice activity, segmentation, bucketing. No storage, no text, no torch."""
