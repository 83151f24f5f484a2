"""Looking back: what was decided and why, what it was made from, and what is like it."""
