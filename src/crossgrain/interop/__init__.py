"""Published checkpoints, read into this library's models with a strict report."""
