"""Files, locks, checkpoints, devices and progress."""
