"""`python -m tests.tools.drill [faults | builds | judge | …] …`: see scripts/drill."""

from __future__ import annotations

import importlib
import sys

_DRILLS = {
    "faults": "faultdrill",
    "builds": "builds",
    "judge": "kept",
    "rolling": "rolling",
    "storm": "storm",
    "slow": "slow",
    "upgrade": "upgrading",
}


def main() -> int:
    words = sys.argv[1:]
    name = words.pop(0) if words and words[0] in _DRILLS else "faults"
    return int(importlib.import_module(f"tests.tools.drill.{_DRILLS[name]}").main(words))


if __name__ == "__main__":
    sys.exit(main())
