"""INPUT arguments to planned recordings, and planned recordings to bytes: one file a kind of shard."""
