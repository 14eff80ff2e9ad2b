"""Where a recording is cut: speech, windows, chunks of a stream."""
