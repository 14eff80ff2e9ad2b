"""Recognisers that write text token by token while they look at an encoder's frames: the engine that they share."""
