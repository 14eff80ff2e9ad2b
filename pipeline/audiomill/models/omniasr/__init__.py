"""Meta's Omnilingual ASR: a large wav2vec 2.0 with a CTC head for 1,600 languages."""
