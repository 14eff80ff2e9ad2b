"""NVIDIA's FastConformer with a CTC head."""
