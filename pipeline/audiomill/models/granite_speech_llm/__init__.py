"""Granite Speech 3 and 4: a conformer, a Q-Former, a Granite with LoRA weights for speech."""
