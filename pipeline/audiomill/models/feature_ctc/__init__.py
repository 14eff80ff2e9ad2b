"""Recognisers on frozen features: a CTC head on what any encoder gives."""
