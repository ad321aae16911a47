"""Experiments: a file each, whose `get_config` returns every setting."""
