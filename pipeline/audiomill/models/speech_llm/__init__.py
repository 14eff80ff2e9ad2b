"""A speech encoder, a projector and a causal language model that reads what the projector makes of speech and writes what was said."""
