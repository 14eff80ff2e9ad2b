"""The d-vector of Resemblyzer: one vector of a voice from a recurrent network."""
