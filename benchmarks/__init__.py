"""Our program beside its peers, on the same work in one run. Each module prints a table and can save it."""
