"""What comes out: one file a table, rows, and the reader of finished outputs."""
