"""Recognisers that write labels one after the other along the frames: RNN-T and TDT."""
