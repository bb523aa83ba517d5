"""For every test: a property test fails by what it finds, never by how long an example takes on a shared machine."""

from hypothesis import HealthCheck, settings

settings.register_profile("r1plus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("r1plus")
