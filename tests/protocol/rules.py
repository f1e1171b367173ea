"""All rules of the protocol in one class, for whatever nodes a test module brings."""

from __future__ import annotations

from tests.protocol.auth import HandshakeRules, TokenRules
from tests.protocol.bad_changes import BadChangeRules
from tests.protocol.badframes import BadFrameRules
from tests.protocol.blocks import BlockRules
from tests.protocol.changed_again import ChangeResendRules
from tests.protocol.changes import ChangeRules
from tests.protocol.connect import ConnectRules
from tests.protocol.control import ControlRules, HistoryRules
from tests.protocol.cursors import CursorRules
from tests.protocol.delivery import DeliveryRules
from tests.protocol.flow import FlowRules
from tests.protocol.messages import MessageRules, ResendRules
from tests.protocol.own_devices import OwnDeviceRules
from tests.protocol.presence import PresenceRules
from tests.protocol.questions import QuestionRules
from tests.protocol.room_changes import RoomChangeRules
from tests.protocol.rooms import RoomRules
from tests.protocol.signals import SignalRules
from tests.protocol.state import StateRules
from tests.protocol.talks import TalkRules
from tests.protocol.visitors import VisitorRules

PARTS = (
    ConnectRules,
    CursorRules,
    MessageRules,
    ResendRules,
    BadFrameRules,
    ChangeRules,
    ChangeResendRules,
    BadChangeRules,
    RoomChangeRules,
    DeliveryRules,
    OwnDeviceRules,
    FlowRules,
    VisitorRules,
    TokenRules,
    HandshakeRules,
    ControlRules,
    HistoryRules,
    RoomRules,
    QuestionRules,
    SignalRules,
    StateRules,
    PresenceRules,
    TalkRules,
    BlockRules,
)


class ProtocolRules(*PARTS):
    """Every rule; a subclass gives `nodes` and `spare_node`, and is a TestCase."""

    def test_no_rule_hides_another(self) -> None:
        """Two parts with a test of the same name would be one test too few."""
        names = [name for part in PARTS for name in vars(part) if name.startswith("test_")]
        self.assertEqual(sorted({name for name in names if names.count(name) > 1}), [])
