"""Engines: the same plan in this process (local.py) or on Ray (on_ray.py)."""
