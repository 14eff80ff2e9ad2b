"""What models answer to the segments of a piece: exact batches, retries, texts, and proofs."""
