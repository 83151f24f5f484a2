"""The commands that a user types, by subject; `influcoder_assets.cli` puts them together."""
