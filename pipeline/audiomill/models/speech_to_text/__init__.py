"""Transformer sequence-to-sequence on log-mel filter banks: transformers' Speech2Text, and the last student of self-training."""
