"""Losses, the step, the loop around it, checkpoints, and what a run leaves behind."""
