"""Keeping the live build in step with its source, without building it anew.

One pass over the source writes only the items that differ, embeds only the texts
that are new, and removes what is gone. ``turns`` is its life, ``reading`` the pass
over the rows, ``judging`` what becomes of each, ``removing`` the end.
"""

from indexes.refresh.turns import problems, resume_stalled, run, run_to_end, start

__all__ = ["problems", "resume_stalled", "run", "run_to_end", "start"]
