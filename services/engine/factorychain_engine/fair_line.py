"""Whose turn it is when a place becomes free in an engine that is full. Pure.

Invariant: tenants take turns, and the users of a tenant among themselves, so that one of them with many
runs waiting, or a tenant with many users, holds up nobody else.
"""

from __future__ import annotations

from collections import OrderedDict

from factorychain._core.ids import Principal


class FairLine:
    """Users who wait for room."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))

    def join(self, principal: Principal) -> None:
        """Wait, behind those of the same tenant; who waits already keeps its turn."""
        self._tenants.setdefault(principal.tenant, OrderedDict()).setdefault(principal.user)

    def leave(self, principal: Principal) -> None:
        """Wait no more."""
        users = self._tenants.get(principal.tenant)
        if users is not None:
            users.pop(principal.user, None)
            if not users:
                del self._tenants[principal.tenant]

    def next(self) -> Principal | None:
        """Whose turn it is; then it is that of another tenant, and in this one of another user."""
        if not self._tenants:
            return None
        tenant, users = next(iter(self._tenants.items()))
        user, _ = users.popitem(last=False)
        if users:
            self._tenants.move_to_end(tenant)
        else:
            del self._tenants[tenant]
        return Principal(tenant, user)
