"""Neural audio codecs of transformers: codes of their own quantizers."""
