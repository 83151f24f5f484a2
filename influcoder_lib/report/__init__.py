"""The curation report: a shard's aggregates, one report model, an HTML and a markdown renderer."""
