"""Google's LASR conformer with a CTC head."""
