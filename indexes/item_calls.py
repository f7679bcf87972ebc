"""The items API's door: items put or deleted in one call, in every build that can be searched.

Two calls may race for an item, a build may go live or finish its load meanwhile, and
the endpoint is slow. So a call reads and decides under locks, in the order of the ids;
where it then lacks vectors it gives all locks back, embeds, and decides anew. Nothing
is committed unless Valkey and its replicas took every write. ``ItemChange`` says which version of an
item is the newest, together with the live build, which has those of the source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
import structlog
from django.db import transaction
from django.db.models import F

from indexes import index_lock
from indexes.changes import row_of, takes_changes
from indexes.errors import RowError, SearchUnavailable, UnknownIndex
from indexes.item_rows import RowReader, Sent, merged
from indexes.item_vectors import Failure, Vectors
from indexes.item_writes import ABSENT, Change, State, Target, Write, send_surely
from indexes.models import IndexBuild, IndexDefinition, ItemChange
from indexes.schema import IndexSpec

log = structlog.get_logger(__name__)
Status = IndexBuild.Status

# Each round embeds what the one before lacked. More than two take builds that come meanwhile.
ROUNDS: Final = 5

_Read = Callable[[RowReader, int, Any], Sent]


class Refusal(NamedTuple):
    """An entry that was not taken: ``position`` is its place in the call, from 0, and why."""

    position: int
    id: str | None
    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call; ``builds`` are those that have its changes now."""

    accepted: int
    refused: list[Refusal]
    builds: list[str]


def put(slug: str, rows: Sequence[Any]) -> Outcome:
    """Write these rows over the items of an index. Raises UnknownIndex, SearchError, DatabaseError."""
    return _change(slug, rows, RowReader.put)


def delete(slug: str, entries: Sequence[Any]) -> Outcome:
    """Delete these items, each an id or an object with ``id`` and maybe ``version``. Raises as ``put``."""
    return _change(slug, entries, RowReader.delete)


def _change(slug: str, entries: Sequence[Any], read: _Read) -> Outcome:
    definition = IndexDefinition.objects.filter(slug=slug).first()
    if definition is None:
        raise UnknownIndex(slug)
    call = _Call(definition)
    call.read(entries, read)
    for _ in range(ROUNDS):
        with transaction.atomic():
            if call.decide():
                call.write()
                break
            transaction.set_rollback(True)
        call.vectors.embed()
    else:
        raise SearchUnavailable(f'The builds of "{slug}" change faster than items can be embedded.')
    call.count()
    return call.outcome()


@dataclass
class _Item:
    """One item of a call: its row in the database, and what becomes of it entry by entry."""

    change: ItemChange
    exists: bool
    newest: float | None
    result: Change | None = None
    # The entry that the text of the result came with.
    text_from: int = -1

    def judge(self, sent: Sent) -> Refusal | None:
        """Apply an entry, or return why not."""
        try:
            self._take(sent)
        except RowError as error:
            return Refusal(sent.position, sent.id, error.reason, str(error))
        return None

    def _take(self, sent: Sent) -> None:
        older = None not in (sent.version, self.newest) and sent.version < self.newest  # type: ignore[operator]  # neither is None
        if older:
            raise RowError(
                "older_version",
                f"Its version {sent.version:.17g} is older than {self.newest:.17g}, "
                "which the index has.",
            )
        if sent.row is None:
            self._replace(sent, "", deleted=True)
        elif not sent.partial:
            self._replace(sent, orjson.dumps(sent.row).decode())
            self.text_from = sent.position
        elif self.exists:
            self._merge(sent, sent.row)
        else:
            raise RowError(
                "unknown_item",
                "The row has none of the fields of the text, so it can only change an item, "
                "and the index has none of this id. Send the whole row.",
            )
        if sent.version is not None:
            self.newest = sent.version

    def _replace(self, sent: Sent, row: str, *, deleted: bool = False) -> None:
        self.change.row, self.change.deleted, self.change.partial = row, deleted, False
        self.change.version, self.change.settled_at = sent.version, None
        self.exists = not deleted
        self.result = Change(sent.id, sent.version, sent.row)

    def _merge(self, sent: Sent, row: dict[str, Any]) -> None:
        change, before = self.change, self.result
        # What the source has overtaken must not come back with this change.
        holds = bool(change.row) and change.settled_at is None
        whole = merged(row_of(change), row) if holds else row
        version = sent.version
        if version is None and before is not None:
            version = before.version
        if sent.version is not None or not holds:
            change.version = sent.version
        change.row = orjson.dumps(whole).decode()
        change.partial, change.deleted = change.partial or not holds, False
        change.settled_at = None
        if change.partial:
            # Only what this call says: what an earlier one said, the builds have.
            whole = merged(before.row, row) if before is not None and before.row else row
        self.result = Change(sent.id, version, whole, change.partial)


class _Call:
    """One call, which may decide several times and writes once."""

    def __init__(self, definition: IndexDefinition) -> None:
        self._definition = definition
        self._sent: dict[str, list[Sent]] = defaultdict(list)
        # Those that are wrong in themselves, and those that this round refused.
        self._wrong: list[Refusal] = []
        self._refused: list[Refusal] = []
        self._accepted = 0
        self._targets: list[Target] = []
        self._changes: list[ItemChange] = []
        self._writes: list[tuple[Target, Write]] = []
        self.vectors = Vectors()

    def read(self, entries: Sequence[Any], read: _Read) -> None:
        """Sort out the entries that are wrong whatever the index holds."""
        reader = RowReader(self._spec_of_record())
        for position, entry in enumerate(entries):
            try:
                sent = read(reader, position, entry)
            except RowError as error:
                self._wrong.append(Refusal(position, reader.id_in(entry), error.reason, str(error)))
            else:
                self._sent[sent.id].append(sent)

    def _spec_of_record(self) -> IndexSpec:
        targets = _targets(self._definition)
        return targets[0].spec if targets else self._definition.to_spec()

    def decide(self) -> bool:
        """Lock the items and decide each; False where vectors are missing, which are noted then.

        Needs an open transaction, which is to be given up when it is False.
        """
        self._refused, self._writes, self._changes, self._accepted = [], [], [], 0
        now = index_lock.share(self._definition.pk)
        ids = sorted(self._sent)
        if not ids:
            return True
        self._targets = _targets(self._definition)
        changes = _locked(self._definition, ids, now)
        states = {target.build.pk: target.states(ids) for target in self._targets}
        # Of builds that still load, nobody knows what they will hold.
        blind = (
            not self._targets
            and self._definition.builds.filter(status__in=IndexBuild.RUNNING).exists()
        )
        for item_id in ids:
            change = changes[item_id]
            change.changed_at = now
            own = [states[target.build.pk][item_id] for target in self._targets]
            self._decide(change, self._sent[item_id], own, blind)
        return not self.vectors.missing

    def _decide(
        self, change: ItemChange, sent: list[Sent], states: list[State], blind: bool
    ) -> None:
        """Apply the entries of one item in their order, and again without one whose text has no vector."""
        before = {name: getattr(change, name) for name in _KEPT}
        without_vector: dict[int, Refusal] = {}
        while True:
            for name, value in before.items():
                setattr(change, name, value)
            item = _item(change, states[0] if states else ABSENT, blind)
            left = [one for one in sent if one.position not in without_vector]
            judged = {one.position: refusal for one in left if (refusal := item.judge(one))}
            taken = [one for one in left if one.position not in judged]
            writes, failure = self._plan(item.result, states)
            if failure is None:
                break
            culprits = [one for one in taken if one.position == item.text_from] or taken[-1:]
            if without_vector or failure.retryable:
                # It is not about one text: the others would only be found out one by one.
                culprits += [one for one in taken if one.row is not None and not one.partial]
            for one in culprits:
                without_vector[one.position] = Refusal(one.position, one.id, *failure)
        self._refused += [*judged.values(), *without_vector.values()]
        self._accepted += len(taken)
        self._writes += writes
        if item.result is not None:
            change.newest = item.newest
            self._changes.append(change)

    def _plan(
        self, change: Change | None, states: list[State]
    ) -> tuple[list[tuple[Target, Write]], Failure | None]:
        """Return the writes of a change, or why it has no vector."""
        writes: list[tuple[Target, Write]] = []
        if change is None:
            return writes, None
        for target, state in zip(self._targets, states, strict=True):
            try:
                write = target.plan(change, state)
            except RowError as error:
                # Right for the live build. This one keeps what it has, as it has other fields.
                log.info("item unfit", build=target.label, item=change.id, reason=error.reason)
                continue
            if write is not None and write.text is not None:
                write, failure = self.vectors.complete(target, write)
                if failure is not None:
                    return [], failure
            if write is not None:
                writes.append((target, write))
        return writes, None

    def write(self) -> None:
        """Write what was decided, to the database and to Valkey; the caller commits."""
        _save(self._definition, self._sent, self._changes)
        # What was accepted is not sent again, so a failover must not lose it.
        send_surely([write for _, write in self._writes])

    def count(self) -> None:
        """Keep the number of items of each build; after the commit, as nothing else waits for it."""
        deltas: dict[int, int] = defaultdict(int)
        for target, write in self._writes:
            deltas[target.build.pk] += write.delta
        for build_id, delta in sorted(deltas.items()):
            if delta:
                IndexBuild.objects.filter(pk=build_id).update(
                    written=F("written") + delta, indexed=F("indexed") + delta
                )

    def outcome(self) -> Outcome:
        refused = sorted([*self._wrong, *self._refused])
        return Outcome(self._accepted, refused, [target.label for target in self._targets])


# What a decision changes in a row and another round starts from again.
_KEPT: Final = ("row", "deleted", "partial", "version", "settled_at")


def _item(change: ItemChange, state: State, blind: bool) -> _Item:
    known = bool(change.row) or change.deleted
    holds = known and change.settled_at is None
    exists = state.exists or (holds and not change.deleted and not change.partial)
    versions = [one for one in (change.newest, state.version) if one is not None]
    return _Item(change, exists or (blind and not known), max(versions, default=None))


def _targets(definition: IndexDefinition) -> list[Target]:
    """Return the builds that get changes now: the live one first, then the newest."""
    builds = definition.builds.filter(takes_changes()).order_by("-number")
    return [
        Target(build) for build in sorted(builds, key=lambda build: build.status != Status.LIVE)
    ]


def _locked(
    definition: IndexDefinition, ids: Sequence[str], now: datetime
) -> dict[str, ItemChange]:
    """Return the rows of these items, locked; new ones, empty until they are saved, stand in line too."""
    ItemChange.objects.bulk_create(
        (ItemChange(definition=definition, item_id=item_id, changed_at=now) for item_id in ids),
        ignore_conflicts=True,
    )
    # In one order, so that two calls never wait for each other.
    rows = ItemChange.objects.select_for_update().filter(definition=definition, item_id__in=ids)
    return {change.item_id: change for change in rows.order_by("item_id")}


def _save(definition: IndexDefinition, ids: Iterable[str], changes: Iterable[ItemChange]) -> None:
    changes = list(changes)
    fields = ["version", "newest", "deleted", "partial", "row", "changed_at", "settled_at"]
    ItemChange.objects.bulk_create(
        changes, update_conflicts=True, unique_fields=["id"], update_fields=fields
    )
    # Rows made to be locked, of which every entry was refused.
    saved = {change.item_id for change in changes}
    empty = ItemChange.objects.filter(definition=definition, row="", deleted=False)
    empty.filter(item_id__in=[item_id for item_id in ids if item_id not in saved]).delete()
