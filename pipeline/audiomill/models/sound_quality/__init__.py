"""Networks that judge how speech sounds."""
