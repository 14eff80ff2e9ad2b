"""Codes of encode runs -> a language model over them."""
