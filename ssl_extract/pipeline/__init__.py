"""The pipeline: from a config to results."""
