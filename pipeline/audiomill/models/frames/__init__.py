"""What models of waveform frames share: exact batches, inputs, and one forward pass for text, vectors and codes."""
