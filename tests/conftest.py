"""For every test: property tests have no deadline, since an example's time says nothing on a shared machine."""

from hypothesis import settings

settings.register_profile("r1plus", deadline=None)
settings.load_profile("r1plus")
