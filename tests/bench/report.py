"""The table that `make bench` prints: rows under headings, with the machine that they were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH = 150


@dataclass(frozen=True, slots=True)
class Row:
    """What, measured, wanted; a heading has only the first."""

    what: str
    measured: str = ""
    wanted: str = ""
    heading: bool = False


@dataclass(slots=True)
class Report:
    """Rows of the table in order."""

    rows: list[Row] = field(default_factory=list)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def heading(self, what: str) -> None:
        """What follows belongs together."""
        self.rows.append(Row(what, heading=True))

    def add(self, what: str, measured: object, wanted: str = "") -> None:
        """Adds a row."""
        self.rows.append(Row(what, str(measured), wanted))

    def show(self) -> None:
        """Prints the table."""
        table = Table(title="factorychain bench", caption=self._machine(), pad_edge=False)
        for column in ("what", "measured", "wanted"):
            table.add_column(column)
        for row in self.rows:
            if row.heading:
                table.add_section()
                table.add_row(f"[bold]{escape(row.what)}[/bold]")
            else:
                table.add_row(f"  {escape(row.what)}", escape(row.measured), escape(row.wanted))
        Console(width=_WIDTH).print(table)

    def _machine(self) -> str:
        """The load before shows whether others used the machine; that after is mostly the bench's own."""
        took_s = (datetime.now(UTC) - self.began).total_seconds()
        kernel = ".".join(platform.release().split(".")[:2])
        return (
            f"{self.began:%Y-%m-%d %H:%M} UTC, {took_s:.0f} s; {os.cpu_count()} processors, "
            f"{platform.system()} {kernel}, Python {platform.python_version()}; "
            f"load average {self.load:.1f} before, {os.getloadavg()[0]:.1f} after"
        )
