"""From codes back to sound, and how much of it is left."""
