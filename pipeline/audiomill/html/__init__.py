"""Pages: one shell, one kit of figures."""
