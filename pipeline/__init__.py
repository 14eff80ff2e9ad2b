"""audiomill: a batch pipeline that turns audio corpora into tables."""

__version__ = "0.1.0"
