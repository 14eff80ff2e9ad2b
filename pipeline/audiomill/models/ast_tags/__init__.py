"""Sound tags by an audio spectrogram transformer: speech, music, singing, noise and hundreds more."""
