"""Models learn: labelled and pseudo-labelled clips in, a checkpoint out; and the loop around it."""
