"""Numbers that more than one place needs."""

WINDOW_S = 30.0
"""Whisper's window, and the longest segment of other models, in seconds."""
SPEECH_SEGMENT_S = 14.0
"""Longest segment where Whisper writes what voice activity found. Measured by benchmarks/whisper_cpu.py on tiny.en and
base: no less accurate than 30 s, and faster."""
WINDOWS_BATCH_S = {"cpu": 1920.0, "cuda": 1920.0}
FRAMES_BATCH_S = {"cpu": 10.0, "cuda": 480.0}
"""Padded seconds a batch by device, of models that read windows and of models with frames (whose activations leave a
CPU's caches early). Measured."""
REPEATING_RATIO = 2.4
"""Texts that zlib makes so much shorter repeat themselves. Source: Whisper's `compression_ratio_threshold`."""
