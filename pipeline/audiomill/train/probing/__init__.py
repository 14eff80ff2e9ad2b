"""What the layers of a model know: a linear probe with cross-validation, and the weights that it learned."""
