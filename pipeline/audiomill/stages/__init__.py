"""The flow, in its order: plan, read, cut, infer, write."""
