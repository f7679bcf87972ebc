"""Ways to order candidates: one file each, listed in ``registry``."""
