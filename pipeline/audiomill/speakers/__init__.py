"""Who is who: local speakers of segments -> speakers of a recording, their turns, and whose a word is."""
