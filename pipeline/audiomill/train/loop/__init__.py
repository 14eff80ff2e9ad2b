"""Rounds of label, select, train, evaluate, promote."""
