"""In-memory doubles of what the domain needs: inboxes, archive queue, bus, sockets. No I/O, no clock.

Nothing answers by itself: a test says when a call is done, when its answer arrives, and which get lost.
"""

from tests.support.doubles.aims import AimsDouble
from tests.support.doubles.archive import ArchiveDouble, QueueDouble
from tests.support.doubles.blocks import BlocksDouble
from tests.support.doubles.bus import BusDouble, Network
from tests.support.doubles.inbox import UNCONFIRMED, Held, InboxDouble
from tests.support.doubles.rooms import RoomsDouble
from tests.support.doubles.states import StatesDouble
from tests.support.doubles.wire import WireDouble

__all__ = [
    "UNCONFIRMED",
    "AimsDouble",
    "ArchiveDouble",
    "BlocksDouble",
    "BusDouble",
    "Held",
    "InboxDouble",
    "Network",
    "QueueDouble",
    "RoomsDouble",
    "StatesDouble",
    "WireDouble",
]
