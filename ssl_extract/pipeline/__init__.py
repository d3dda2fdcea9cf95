"""From a config to results: the only room that reads a config."""
