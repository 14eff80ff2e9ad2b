"""What models with a CTC head share: greedy and beam search, alignment, vocabulary, kept posteriors."""
