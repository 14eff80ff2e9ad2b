"""Vectors and codes in the formats of training code, split without leakage, in shards of a given size."""
