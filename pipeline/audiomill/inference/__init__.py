"""Models in memory: sound goes in, answers come out, without an output folder and without Ray."""
