"""CAM++: one vector of a voice from Kaldi log-mels."""
