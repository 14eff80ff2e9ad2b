"""What models of speakers share: vectors of a voice, and who is heard where in a segment."""
