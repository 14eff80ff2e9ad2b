"""One training: batches, updates, states that survive a kill."""
