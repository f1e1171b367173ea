"""Makes a JWT that the nodes of a configuration accept.

The secret is that of [auth] secret (HS256). With a public key, whoever has the private one makes the tokens.

example:
  imd token --user alice --role agent --hours 8 --config etc/cluster.ini"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jwt

from imd.command.output import Output
from imd.config.settings import Auth, load
from imd.protocol.errors import ConfigurationError
from imd.protocol.message import is_usable_id, is_visitor_id

ROLES: dict[str, dict[str, Any]] = {
    "user": {"loginType": "USER_TYPE"},
    "customer": {"loginType": "CUSTOMER_TYPE"},
    "agent": {"loginType": "USER_TYPE", "isCustomerService": True},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", required=True, help="whose token it is (sub)")
    parser.add_argument("--role", choices=ROLES, default="user", help="user, unless said otherwise")
    parser.add_argument("--hours", type=float, default=12.0, help="until it expires (12)")
    parser.add_argument("--config", "-c", required=True, metavar="FILE", help="the nodes' configuration")


def run(options: Any, output: Output) -> int:
    token, claims = make_token(load(options.config).auth, options.user, options.role, options.hours)
    if output.as_json:
        output.value({"token": token, "claims": claims})
    else:
        print(token, file=output.stream)
    return 0


def make_token(auth: Auth, user: str, role: str, hours: float) -> tuple[str, dict[str, Any]]:
    """A token and its claims. Raises ConfigurationError if there can be none."""
    if auth.mode == "open":
        raise ConfigurationError(
            "[auth] mode = open: tokens are not read; anybody on the node's machine may be anybody"
        )
    if not auth.secret:
        raise ConfigurationError(
            "[auth] public_key: only the private key can make tokens, and a node does not have it"
        )
    if not is_usable_id(user) or is_visitor_id(user):
        raise ConfigurationError("--user: 1 to 128 characters, not beginning with visitor-, are expected")
    if not 0 < hours < 24 * 36500:
        raise ConfigurationError("--hours: above 0, and less than a hundred years")
    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + round(hours * 3600), **ROLES[role]}
    if auth.issuer:
        claims["iss"] = auth.issuer
    if auth.audience:
        claims["aud"] = auth.audience
    return jwt.encode(claims, auth.secret.encode("utf-8", "surrogateescape"), "HS256"), claims
