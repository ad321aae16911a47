"""Files, logging, command line, devices, processes, hub and languages; nothing of retrieval."""
