"""Commands that fit codebooks, decoders and models."""
