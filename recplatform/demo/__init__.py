"""The demo content: a seeded catalog, users, endpoints, indexes and surfaces."""
