"""The plans of this process: read from Valkey, kept in memory, renewed within a second.

Nothing here touches the database on a request. Each process watches the version of
the serving snapshot and loads what is newer; whatever fails, it goes on with what
it has. A surface that does not compile keeps its last good plan; one that never
compiled serves its default list. Keys, indexes and surfaces are read one by one,
so that a document of a newer release takes only itself down.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Protocol, TypeVar

import structlog
from django.conf import settings
from pydantic import BaseModel, ValidationError

from indexes.errors import IndexesError
from indexes.schema import LiveIndex
from indexes.valkey import VersionedDocument
from surfaces import metrics
from surfaces.canary import beside, with_canaries
from surfaces.document import Canary, KeyScope, PublishedSurface
from surfaces.errors import PlanInvalid, SnapshotUnavailable
from surfaces.metrics import plans_checked
from surfaces.plan import Plan, compile_plan

log = structlog.get_logger(__name__)

POLL_S = 0.25
# What new plans may take to get ready before they serve, ready or not: a publish is
# promised within a second, while a process that starts has no older plans to serve.
PREPARE_S = 0.3
FIRST_PREPARE_S = 2.0
Model = TypeVar("Model", bound=BaseModel)


class Store(Protocol):
    """Where the snapshot is kept. Raises IndexesError."""

    def version(self) -> int | None: ...

    def read(self) -> tuple[int, bytes] | None: ...


class Prepare(Protocol):
    """Makes plans ready to serve, and returns after that time at the latest."""

    def __call__(self, plans: Iterable[Plan], *, timeout_s: float) -> object: ...


Loader = Callable[[], tuple[int, bytes]]
# Looks after plans that are served: returns at once, with what is wrong by surface.
Recheck = Callable[[Iterable[Plan]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class State:
    """What one snapshot gave; replaced as a whole."""

    version: int = -1
    plans: Mapping[str, Plan] = field(default_factory=dict)
    keys: Mapping[str, KeyScope] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """Plans by slug and key scopes by digest. Doors are safe to call from any thread.

    ``loader`` gives the snapshot when Valkey cannot, ``prepare`` makes plans ready before
    they serve, and ``recheck`` looks after those that do: ``surfaces.listeners`` sets them,
    since this module knows no model. ``on_checked`` is told the version each time it is current.
    """

    def __init__(
        self,
        store: Store | None = None,
        loader: Loader | None = None,
        *,
        poll_s: float = POLL_S,
        on_checked: Callable[[int], object] = lambda version: None,
    ) -> None:
        self.loader = loader
        self.prepare: Prepare = lambda plans, *, timeout_s: None
        self.recheck: Recheck = lambda plans: {}
        self._on_checked = on_checked
        self._store = store
        self._poll_s = poll_s
        self._state = State()
        self._faults: Mapping[str, str] = {}
        self._confirmed = 0.0
        self._trouble = ""
        self._unreadable = -1
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load now, and keep watching in a thread of this process. Starting again changes nothing."""
        if self._watched():
            return
        with self._starting:
            if self._watched():
                return
            if not self.loaded:
                self.refresh()
            self._stopped.clear()
            self._thread = threading.Thread(target=self._watch, daemon=True, name="registry")
            self._thread.start()

    def stop(self) -> None:
        """Stop watching; what is loaded stays."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def plan(self, slug: str) -> Plan | None:
        """Return the plan of a published surface; None too before the first load (``loaded``)."""
        return self._current().plans.get(slug)

    def scope(self, digest: str) -> KeyScope | None:
        """Return what the key with this digest may call; None too before the first load (``loaded``)."""
        return self._current().keys.get(digest)

    def plans(self) -> Iterable[Plan]:
        """Return every plan that is held now."""
        return tuple(self._state.plans.values())

    @property
    def version(self) -> int:
        """The version that is served; -1 before the first load."""
        return self._state.version

    @property
    def loaded(self) -> bool:
        return self._state.version >= 0

    @property
    def age(self) -> float:
        """Seconds since Valkey last confirmed that this is what is published; infinite if never."""
        return monotonic() - self._confirmed if self._confirmed else float("inf")

    @property
    def problems(self) -> Mapping[str, str]:
        """Surfaces that are not served as published, or not with their model, with the reason."""
        found = dict(self._state.problems)
        for name, fault in self._faults.items():
            found[name] = f"{found[name]} {fault}" if name in found else fault
        return found

    def refresh(self) -> bool:
        """Look once and load what is newer; return whether anything was loaded."""
        renewed = self._renew()
        self._faults = self.recheck(with_canaries(self.plans()))
        if self.loaded and not self._trouble:
            self._on_checked(self.version)
        return renewed

    def _renew(self) -> bool:
        try:
            newer = self._newer()
        except (IndexesError, SnapshotUnavailable) as error:
            self._note(error.reason, str(error))
            return False
        if newer is None:
            return False
        version, body = newer
        try:
            state = _compile(version, body, self._state)
        except ValueError as error:
            self._note("unreadable", f"Snapshot {version} cannot be read: {error}")
            self._unreadable = version
            return False
        self._log_problems(state)
        timeout_s = PREPARE_S if self.loaded else FIRST_PREPARE_S
        self.prepare(with_canaries(state.plans.values()), timeout_s=timeout_s)
        self._state = state
        log.info("plans loaded", version=version, surfaces=len(state.plans), keys=len(state.keys))
        return True

    def _newer(self) -> tuple[int, bytes] | None:
        store = self._store = self._store or VersionedDocument(document_key())
        try:
            version = store.version()
            found = store.read() if self._wants(version) else None
        except IndexesError as error:
            if self.loaded or self.loader is None:
                raise
            self._note(error.reason, str(error))
            return self.loader()
        self._confirmed = monotonic()
        self._note("")
        if version is None and not self.loaded and self.loader is not None:
            return self.loader()
        return found

    def _wants(self, version: int | None) -> bool:
        return version is not None and version > max(self._state.version, self._unreadable)

    def _current(self) -> State:
        self.start()
        return self._state

    def _watched(self) -> bool:
        # False in a forked child too: threads do not follow a fork.
        return self._thread is not None and self._thread.is_alive()

    def _watch(self) -> None:
        fault = ""
        while not self._stopped.wait(self._poll_s):
            try:
                self.refresh()
                if self.loaded:
                    metrics.plans_checked(self.version, self.age)
            except Exception as error:
                # Whatever it is: were the watch to end, this process would stay stale.
                # Told apart by its type, as a message may differ each time.
                if fault != type(error).__name__:
                    fault = type(error).__name__
                    log.error("plans not renewed", reason="error", exc_info=error)
            else:
                fault = ""

    def _note(self, trouble: str, message: str = "") -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.warning("plans not renewed", reason=trouble, message=message)
        else:
            log.info("plans renewed again")

    def _log_problems(self, state: State) -> None:
        for slug, problem in state.problems.items():
            if self._state.problems.get(slug) != problem:
                log.error("surface not compiled", surface=slug, problem=problem)


def document_key() -> str:
    """Return the key of the serving snapshot in Valkey."""
    return f"{settings.VALKEY_NAMESPACE}:serving"


class _Parts(BaseModel):
    """A snapshot whose parts are not read yet."""

    surfaces: dict[str, Any] = {}
    indexes: dict[str, Any] = {}
    canaries: dict[str, Any] = {}
    keys: dict[str, Any] = {}


def _compile(version: int, body: bytes, before: State) -> State:
    """Return the state of a snapshot; raise ValueError when it is not one."""
    parts = _Parts.model_validate_json(body)
    problems: dict[str, str] = {}
    indexes = _read(LiveIndex, parts.indexes, "indexes", problems)
    canaries = _read(Canary, parts.canaries, "canaries", problems)
    surfaces = _read(PublishedSurface, parts.surfaces, "surfaces", problems)
    plans: dict[str, Plan] = {}
    for slug in parts.surfaces:
        kept = before.plans.get(slug)
        if (published := surfaces.get(slug)) is None:
            if kept is not None:
                plans[slug] = _renewed(kept, indexes)
            continue
        try:
            plan = compile_plan(published, indexes.get(published.document.index))
        except PlanInvalid as error:
            problems[slug] = str(error)
            plans[slug] = (
                compile_plan(published, None, unavailable=error.reason)
                if kept is None
                else _renewed(kept, indexes)
            )
            continue
        canary = canaries.get(published.document.index) if plan.index is not None else None
        if canary is not None:
            try:
                plan = beside(plan, published, canary)
            except PlanInvalid as error:
                problems[f"{slug} (canary)"] = str(error)
        plans[slug] = plan
    return State(version, plans, _read(KeyScope, parts.keys, "keys", problems), problems)


def _renewed(kept: Plan, indexes: Mapping[str, LiveIndex]) -> Plan:
    """Return the last good plan on the build that is live now, or as it was where it does not fit."""
    index = indexes.get(kept.document.index)
    if index is not None:
        try:
            return compile_plan(kept.published, index)
        except PlanInvalid:
            pass
    # Without its canary, which may have ended.
    return replace(kept, canary=None)


def _read(
    model: type[Model], content: Mapping[str, Any], name: str, problems: dict[str, str]
) -> dict[str, Model]:
    found = {}
    for key, value in content.items():
        try:
            found[key] = model.model_validate(value)
        except ValidationError as error:
            problems[f"{name}.{key}"] = str(error)
    return found


registry = Registry(on_checked=plans_checked)
