"""Which of three local speakers is heard in each frame: the layout of pyannote segmentation 3.0."""
