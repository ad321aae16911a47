"""Readers of the formats that training data comes in; each yields groups, or texts and links."""
