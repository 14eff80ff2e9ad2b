"""One recording followed through a model, step by step, as pictures."""
