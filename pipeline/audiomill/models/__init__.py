"""Models behind small Protocols (see base.py). Works without Ray."""
