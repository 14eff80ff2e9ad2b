"""UniSpeech and UniSpeech-SAT: relatives of wav2vec 2.0, for text and vectors."""
