"""The life of one run: start, resume, checkpoints, stop requests, and what it records."""
