"""The same person across the recordings of an output: links, names, corrections, and forgetting."""
