"""Beam search of decoders that write token by token."""
