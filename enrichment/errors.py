"""What can go wrong in enrichment, with the caller's decision on each error.

EnrichmentError
├── EnrichmentTimeout        no answer within the source's time
├── EnrichmentThrottled      the store refuses load
├── EnrichmentUnavailable    the store cannot be reached, or failed
├── EnrichmentRejected       configuration is wrong: table, key or credentials
└── KeyTemplateInvalid       a key template that cannot be read
"""


class EnrichmentError(Exception):
    """Base of every error that leaves this package. ``reason`` is the stable word for answers."""

    reason = "error"
    retryable = False


class EnrichmentTimeout(EnrichmentError):
    reason = "timeout"
    retryable = True


class EnrichmentThrottled(EnrichmentError):
    reason = "throttled"
    retryable = True


class EnrichmentUnavailable(EnrichmentError):
    reason = "unavailable"
    retryable = True


class EnrichmentRejected(EnrichmentError):
    """Asking again cannot help: the message says what to correct."""

    reason = "rejected"


class KeyTemplateInvalid(EnrichmentError):
    """A key template has unbalanced braces or names a value that no request can have."""

    reason = "rejected"
