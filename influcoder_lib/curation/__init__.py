"""From embeddings to decisions: search, scores, rules and their reasons."""
