"""The renewal of a connection's token."""

from __future__ import annotations

from imd.entry.allowance import Allowance
from imd.entry.auth import Authenticator, Identity
from imd.protocol.errors import Refused
from imd.protocol.frames import TokenFrame


def renew(
    frame: TokenFrame, identity: Identity, authenticator: Authenticator, allowance: Allowance
) -> Identity:
    """The identity by the new token. Raises Refused: too many tokens, or a token that does not fit."""
    allowance.spend_for_token()
    try:
        return authenticator.renew(frame.token, identity)
    except Refused:
        allowance.token_refused()
        raise
