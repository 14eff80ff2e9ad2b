"""wav2vec (2019) and vq-wav2vec (2020), from fairseq's files."""
