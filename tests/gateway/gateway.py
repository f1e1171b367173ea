"""HAProxy and its sync before real nodes, as the commands set them up."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from imd.gateway.haproxy import Folder, map_text
from imd.gateway.runtime import RuntimeProblem
from imd.gateway.slots import Slots
from tests.gateway.haproxy import Haproxy
from tests.gateway.support import until
from tests.support.servers import HOST, Server, ServerError, spawn, tail

IMD = [sys.executable, "-c", "import sys; from imd.command import main; sys.exit(main())"]
CONFIG_SECONDS = 180.0


class Sync(Server):
    """`imd gateway sync`: no port of its own."""

    name = "sync"

    def __init__(self, folder: Path, ini: Path) -> None:
        super().__init__(folder)
        self._ini = ini

    def answers(self) -> bool:
        return self.running

    def _command(self) -> list[str | Path]:
        return [*IMD, "gateway", "sync", self._ini, "--out", self.folder]


class Gateway:
    """One HAProxy with its sync, in a folder. `ini` is the configuration of a node. All methods block."""

    def __init__(self, folder: Path, ini: Path, name: str = "gateway") -> None:
        self.name = name
        self.folder = folder
        self._ini = ini
        self.haproxy = Haproxy(folder)
        self.sync = Sync(folder, ini)

    @property
    def port(self) -> int:
        return self.haproxy.port

    def start(self, nodes: Iterable[str]) -> None:
        """Return when HAProxy sees these nodes up, and its maps name each of them. Raises ServerError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "config.log"
        words = ["gateway", "config", self._ini, "--bind", f"{HOST}:{self.port}", "--out", self.folder]
        # 1: no table has stood yet. Sync brings the servers when one does.
        if spawn([*IMD, *words], log).wait(CONFIG_SECONDS) not in (0, 1):
            raise ServerError(tail(log))
        self.haproxy.start()
        self.sync.start()
        self.until_leads_to(nodes)

    def kill(self) -> None:
        self.sync.kill()
        self.haproxy.kill()

    def leads_to(self, nodes: Iterable[str]) -> bool:
        """HAProxy sees these nodes up and no others, and its first map has the homes that they give."""
        names = sorted(nodes)
        try:
            is_up = self.haproxy.states() == dict.fromkeys(names, "up")
            return is_up and self.first_map() == self.homes(names)
        except RuntimeProblem:
            return False

    def until_leads_to(self, nodes: Iterable[str], seconds: float = 180.0) -> None:
        """Raises AssertionError."""
        names = list(nodes)
        until(lambda: self.leads_to(names), f"{self.name} leads to {', '.join(names)}", seconds)

    def first_map(self) -> dict[str, str]:
        """Slot → node, as HAProxy holds it. Raises RuntimeProblem."""
        return dict(self.haproxy.runtime.map(self.folder / "first.map"))

    @staticmethod
    def homes(names: Iterable[str]) -> dict[str, str]:
        """The map for a table of these nodes."""
        return {str(slot): name for slot, name in enumerate(Slots(names).first)}

    def reload_with_maps_of(self, names: Iterable[str]) -> None:
        """Reload HAProxy with the maps of another table. Sync must stand still: it would put them right."""
        slots, place = Slots(names), Folder(str(self.folder))
        for path, choices in ((place.first, slots.first), (place.second, slots.second)):
            path.write_text(map_text(choices))
        self.haproxy.reload()
