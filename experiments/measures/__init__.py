"""Metrics of single studies, each registered by a module that the study names."""
