"""A masked language model over codes as a model of frames: audio -> codes of another checkpoint -> hidden states."""
