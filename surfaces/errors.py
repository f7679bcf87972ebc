"""What can go wrong in surfaces, with what the caller should do on each error.

SurfacesError
├── BadRequest            the request names a wrong field or value, or lacks one: every problem is listed
├── UnknownSurface        no surface of that slug is published
├── StageFailed           a stage that the answer cannot be made without; stays inside the pipeline
├── ServiceUnavailable    the pipeline failed and the surface's policy is to fail fast
├── PlanInvalid           a published document does not fit the live index
├── CannotPublish         a draft with problems: every problem is listed, each on its form field
│   └── DraftChanged      it, or its live index, is no longer what was looked at
└── SnapshotUnavailable   neither Valkey nor the database can say what is published
"""

from collections.abc import Sequence
from typing import NamedTuple


class FieldError(NamedTuple):
    """One wrong value of a request: ``field`` as the caller wrote it, such as ``filters.price``."""

    field: str
    code: str
    message: str


class Problem(NamedTuple):
    """One reason not to publish, on a field of the surface's form, such as ``filters[2].values``."""

    field: str
    message: str


class SurfacesError(Exception):
    """Base of every error that leaves this package."""

    reason = "error"


class BadRequest(SurfacesError):
    """The request cannot be answered as it is; ``errors`` holds every wrong field.

    Codes: ``required``, ``invalid``, ``not_open`` (a filter the surface does not
    open to callers), ``too_large`` (above the surface's limit).
    """

    reason = "bad_request"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = tuple(errors)


class UnknownSurface(SurfacesError):
    """No surface of that slug is published."""

    reason = "unknown_surface"

    def __init__(self, slug: str) -> None:
        super().__init__(f'No surface "{slug}" is published.')
        self.slug = slug


class StageFailed(SurfacesError):
    """A stage gave nothing and the answer needs it; ``reason`` is ``stage:word``."""

    def __init__(self, stage: str, word: str) -> None:
        super().__init__(f"{stage} failed: {word}")
        self.reason = f"{stage}:{word}"


class ServiceUnavailable(SurfacesError):
    """The pipeline failed and the surface is set to fail fast.

    ``reason`` says which stage and why, as in ``embed:timeout``.
    """

    def __init__(self, slug: str, reason: str) -> None:
        super().__init__(f'Surface "{slug}" cannot answer now ({reason}). Try again shortly.')
        self.slug = slug
        self.reason = reason


class PlanInvalid(SurfacesError):
    """A published document does not fit the live index, so it cannot be compiled."""

    reason = "does_not_compile"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = tuple(problems)


class CannotPublish(SurfacesError):
    """A draft has problems; ``problems`` holds every one."""

    reason = "cannot_publish"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = tuple(problems)


class DraftChanged(CannotPublish):
    """The draft or its live index changed since it was looked at: look again, then publish."""

    def __init__(self) -> None:
        super().__init__(
            [
                Problem(
                    "__all__",
                    "The draft or its index was changed after this page was opened. Look again.",
                )
            ]
        )


class SnapshotUnavailable(SurfacesError):
    """The database, asked for the snapshot because Valkey has none, cannot give it."""

    reason = "unavailable"
