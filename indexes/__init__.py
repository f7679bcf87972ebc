"""indexes finds: embedding endpoints, catalogs, builds and vector search."""
