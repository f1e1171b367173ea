"""The tests, and what they and the scripts share."""

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("imd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("imd")
