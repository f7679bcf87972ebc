"""Names of physical indexes and keys. Imports nothing, so that every layer may use it.

The rules come from what both search engines accept everywhere: index and field
names of ``[A-Za-z0-9_]``, and no hash tag in a key prefix.
"""

VECTOR_FIELD = "rp_vector"
DISTANCE_ALIAS = "rp_distance"
# The catalog row an item was made from: tells a duplicate id from a repeated shard.
ROW_FIELD = "rp_row"
# Digests of what an item was made from: of the text alone, and of text and fields.
TEXT_FIELD = "rp_text"
CONTENT_FIELD = "rp_content"
# The version that its row gave, as a number: nothing older is written over it.
VERSION_FIELD = "rp_version"
# The refresh that last wrote an item: tells a repeated shard from rows that are unchanged.
REFRESH_FIELD = "rp_refresh"
# Catalog fields may not start with it: the platform's own hash fields do.
RESERVED_PREFIX = "rp_"


def build_label(slug: str, number: int) -> str:
    """Return the name people and API answers use for a build: ``products-v3``."""
    return f"{slug}-v{number}"


def index_name(namespace: str, slug: str, number: int) -> str:
    """Return the name given to FT.CREATE: ``rp_products_v3``."""
    return f"{namespace}_{slug}_v{number}".replace("-", "_")


def key_prefix(namespace: str, slug: str, number: int) -> str:
    """Return what every item key of the build starts with: ``rp:products:v3:``."""
    return f"{namespace}:{slug}:v{number}:"
