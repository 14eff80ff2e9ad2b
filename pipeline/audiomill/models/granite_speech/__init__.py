"""IBM's Granite Speech 5: a conformer that halves its rate on the way, with a CTC head."""
