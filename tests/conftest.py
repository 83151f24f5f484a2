"""What holds for every test: hypothesis draws the same examples on every run, at any speed."""

from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")
