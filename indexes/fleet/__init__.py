"""What the search engine holds against what the database says it should: facts, findings and repairs.

The doors are ``indexes.doctor``, ``indexes.capacity`` and ``indexes.limits``.
"""
