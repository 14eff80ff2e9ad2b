"""What headers of audio files state, and whether it can be believed."""
