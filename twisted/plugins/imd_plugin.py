"""Tells twistd about imd. Nothing of imd is imported before `twistd imd` is really asked for."""

from twisted.application.service import ServiceMaker

imd = ServiceMaker("imd", "imd.tap", "An instant-messaging daemon.", "imd")
