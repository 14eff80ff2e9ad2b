"""Words while the audio comes: chunks with bounded delay, many streams on one model."""
