"""Gates: are all items there, measured against the source and against what is live."""

from __future__ import annotations

from indexes.validation.bench import Bench
from indexes.validation.result import Outcome, Result, skipped


def against_source(bench: Bench) -> Result:
    """Every row read became an item or is among the rejected rows, and the engine holds every item.

    Where items were changed through the API meanwhile, the rows cannot be compared any more.
    """
    build = bench.build
    detail = {
        "rows_read": build.cursor,
        "written": build.written,
        "rejected": build.rejected,
        "indexed": bench.count,
    }
    changed = bench.definition.item_changes.exists()
    lost = build.cursor - build.written - build.rejected
    unread = (build.total_rows or build.cursor) - build.cursor
    if unread > 0:
        problem = f"{unread:,} rows of the source were not read."
    elif lost and not changed:
        problem = f"{lost:,} of {build.cursor:,} rows are neither items nor rejected."
    elif bench.count < build.written and not changed:
        problem = f"The engine holds {bench.count:,} of {build.written:,} items."
    else:
        said = f", {build.rejected:,} rows were rejected" if build.rejected else ""
        message = f"All {bench.count:,} items are in the engine{said}."
        return Result(Outcome.PASSED, message, bench.count, build.written, detail)
    message = f"{problem} Build again; if it stays so, look at the log of the worker."
    return Result(Outcome.FAILED, message, bench.count, build.written, detail)


def against_live(bench: Bench) -> Result:
    """A build with far fewer items than the live one was most likely made from half an export."""
    if bench.rival is None:
        return skipped("No build is live to compare with.")
    live = bench.count_of(bench.rival.index_name)
    figure = 100 * bench.count / live
    least = bench.definition.min_items_percent
    detail = {"items": bench.count, f"items_of_{bench.rival.label}": live}
    said = f"{bench.count:,} items, {figure:.0f} % of the {live:,} that are live"
    if figure >= least:
        return Result(Outcome.PASSED, f"{said}.", figure, least, detail)
    message = (
        f"{said}; at least {least} % is asked for. See whether the catalog is complete; "
        'if the assortment did shrink, override, or lower "items against live" of the index.'
    )
    return Result(Outcome.FAILED, message, figure, least, detail)
