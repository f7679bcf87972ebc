"""enrichment looks up: signals about users, items and the moment, from outside stores."""
