"""NVIDIA's FastConformer, the encoder of several families."""
