"""Kept posteriors: read again, respelled, and what a decoder is tuned on."""
