"""Files, checkpoints, devices and progress: what every stage runs on."""
