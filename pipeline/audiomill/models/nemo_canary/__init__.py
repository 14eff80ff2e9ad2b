"""NVIDIA's Canary: FastConformer with a decoder that is told language, task and punctuation (arXiv:2509.14128)."""
