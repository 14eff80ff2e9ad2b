"""Commands that show, measure and export an output."""
