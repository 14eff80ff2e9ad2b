"""A deterministic stand-in, so that everything around a model is tested with an argument."""
