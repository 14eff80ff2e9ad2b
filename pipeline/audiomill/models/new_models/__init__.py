"""Sizes of models that are trained from nothing: a folder a name, with the config.json that `--from-scratch` would take."""
