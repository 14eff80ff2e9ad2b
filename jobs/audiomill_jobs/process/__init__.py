"""Commands that process audio or what was made of it."""
