"""Hidden states as they pass, and the vectors and codes that are read off them."""
