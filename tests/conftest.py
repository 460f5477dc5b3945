"""Settings of every test: a slow machine fails no property test but those that limit the time themselves."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
