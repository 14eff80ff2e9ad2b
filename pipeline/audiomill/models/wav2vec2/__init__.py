"""wav2vec 2.0 and its relatives: frames, text by CTC, codes of the quantizer; fine-tuning and pretraining."""
