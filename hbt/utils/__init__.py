"""Files, resumable output, logging, the command line, settings, devices, processes, hub, languages.

Nothing here knows of retrieval. `files` writes files whole or not at all, `resume` continues output
that was killed, `sharding` maps functions over devices, and `distributed` keeps processes together.
"""

__all__ = ['cli', 'compiled', 'distributed', 'files', 'hub', 'languages', 'log', 'resume']
__all__ += ['settings', 'sharding', 'slices', 'text_table']
