"""The spectrogram itself as a model: what other representations are compared with."""
