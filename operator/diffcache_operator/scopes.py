"""Ensures with Leases that only one operator writes in a namespace.

An operator of all namespaces holds one Lease for that, and one in each namespace with resources. An operator of some
namespaces holds one Lease in each of them. So any two operators that could write the same resource compete for the same
Lease, although an operator of some namespaces has no rights outside of them. The second one waits, and takes over when
the first one ends.

As usual with Leases, other clocks are not trusted: a Lease is free if we watched it for its whole duration and it was
not renewed. An operator that lost the Lease of all namespaces writes nowhere, so its Leases of namespaces are then
free, too: one that was killed, or uninstalled before it could give them back, is waited for once and not twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from diffcache_operator.clients.api import Api, ApiError

LEASE_SECONDS = 30.0
"""Duration of a Lease in seconds. A higher value leaves the resources of a killed operator unattended for longer; with
a lower one an API server that is slow for a moment ends the operator's work."""
RENEW_SECONDS = 10.0  # seconds between two renewals: two of them may fail
RETRY_SECONDS = 5.0  # seconds between two looks at a Lease of another operator
LEASE, ALL_LEASE = "diffcache-operator", "diffcache-operator-all-namespaces"
MEETING_PLACE = "default"  # the namespace that every cluster has and nobody can delete

JSON = dict[str, Any]
log = logging.getLogger("diffcache.operator")


class ScopeLost(Exception):
    """Another operator has taken over, or the Lease could not be renewed in time. The message says which."""


class Scope(NamedTuple):
    """What an operator serves, as the namespace and name of its Lease."""

    namespace: str
    lease: str

    def __str__(self) -> str:
        where = "all namespaces" if self.lease == ALL_LEASE else f"namespace {self.namespace}"
        return f"{where} (Lease {self.lease} in namespace {self.namespace})"


ALL = Scope(MEETING_PLACE, ALL_LEASE)


@dataclass(frozen=True)
class _Seen:
    """Another operator's Lease with its last renewal, and when we saw this renewal first."""

    holder: str
    renewed: str
    at: float  # monotonic seconds


class Scopes:
    """The Leases of one operator. `identity`: its name for operators that wait for it."""

    def __init__(
        self, api: Api, identity: str, namespaces: tuple[str, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`namespaces`: the ones to serve; none means all."""
        self._api, self._identity, self._clock = api, identity, clock
        self._main = tuple(Scope(namespace, LEASE) for namespace in namespaces) or (ALL,)
        self._until: dict[Scope, float] = {}
        self._others: dict[Scope, _Seen] = {}
        self._ended: set[str] = set()  # holders whose Lease of all namespaces has expired
        self._refused: set[Scope] = set()

    @property
    def waits_for(self) -> str:
        """Says which of our scopes we do not serve, and why; empty if we serve all of them."""
        return "; ".join(self._obstacle(scope) for scope in self._main if not self._is_held(scope))

    def holds(self, namespace: str) -> bool:
        return self._is_held(Scope(namespace, LEASE)) and (ALL not in self._main or self._is_held(ALL))

    async def may_write(self, namespace: str) -> bool:
        """Returns whether this operator serves the namespace. An operator of all namespaces takes the Lease of a
        namespace when it first has work there. Raises ApiError."""
        scope = Scope(namespace, LEASE)
        if ALL in self._main and self._is_held(ALL) and not self._is_held(scope) and scope not in self._others:
            await self._take(scope)
        return self.holds(namespace)

    async def wait(self, on_look: Callable[[], None]) -> None:
        """Waits until there is something to serve. Calls `on_look()` after each look."""
        while True:
            for scope in self._main:
                await self._tried(self._take(scope), scope)
            on_look()
            if any(map(self._is_held, self._main)):
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def keep(self, in_use: Callable[[], Iterable[str]], on_look: Callable[[], None]) -> None:
        """Renews Leases for ever, gives back those of namespaces that are not `in_use`, and tries to take those of
        other operators. Raises ScopeLost when nothing is left to serve."""
        while True:
            await asyncio.sleep(RETRY_SECONDS if self._others else RENEW_SECONDS)
            if ALL in self._main:
                await self._drop_unused(set(in_use()))
            for scope in dict.fromkeys((*self._main, *self._until, *self._others)):
                await self._tried(self._take(scope), scope)
            on_look()
            if not any(map(self._is_held, self._main)):
                raise ScopeLost(self.waits_for)

    async def _drop_unused(self, used: set[str]) -> None:
        """Gives back the Leases of unused namespaces: from now on another operator may serve them."""
        for scope in [one for one in (*self._until, *self._others) if one != ALL and one.namespace not in used]:
            self._others.pop(scope, None)
            if scope in self._until:
                await self._tried(self._give_back(scope), scope)

    async def release(self) -> None:
        """Gives back all Leases, so that the next operator need not wait."""
        for scope in list(self._until):
            await self._tried(self._give_back(scope), scope)

    def _is_held(self, scope: Scope) -> bool:
        return self._clock() < self._until.get(scope, float("-inf"))

    def _obstacle(self, scope: Scope) -> str:
        if scope in self._others:
            return f"the operator {self._others[scope].holder} serves {scope}"
        if scope in self._refused:
            return f"the Lease of {scope} cannot be made: is the namespace there?"
        return f"the Lease of {scope} could not be renewed"

    async def _tried(self, work: Awaitable[None], scope: Scope) -> None:
        try:
            await work
        except ApiError as error:
            log.warning("the Lease of %s: %s", scope, error)

    async def _take(self, scope: Scope) -> None:
        """Takes or renews the Lease unless another operator holds it. Raises ApiError."""
        began = self._clock()
        live = await self._api.get("coordination.k8s.io/v1", "Lease", *scope)
        if live is not None and self._is_anothers(scope, live):
            self._until.pop(scope, None)
            return
        body = _renewed(scope, live, self._identity, _now())
        try:
            await (self._api.create(body) if live is None else self._api.replace(body))
        except ApiError as error:
            if error.status == 409:  # another operator was faster: the next look shows which one
                return
            if live is None and error.status in (403, 404):  # the namespace is being deleted, or does not exist yet
                self._until.pop(scope, None)
                self._refused.add(scope)
                return
            raise
        self._refused.discard(scope)
        if self._others.pop(scope, None) is not None:
            log.info("takes over %s", scope)
        self._until[scope] = began + LEASE_SECONDS

    def _is_anothers(self, scope: Scope, lease: JSON) -> bool:
        spec = lease.get("spec", {})
        holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
        if holder in ("", self._identity) or (holder in self._ended and scope != ALL and self._is_held(ALL)):
            return False
        seen = self._others.get(scope)
        if seen is None or seen.holder != holder:
            log.warning(
                "the operator %s serves %s: this one leaves it alone, and takes over when that one ends", holder, scope
            )
        if seen is None or (seen.holder, seen.renewed) != (holder, renewed):
            self._others[scope] = _Seen(holder, renewed, self._clock())
            return True
        if self._clock() - seen.at < LEASE_SECONDS:
            return True
        if scope == ALL:
            self._ended.add(holder)
        return False

    async def _give_back(self, scope: Scope) -> None:
        del self._until[scope]
        live = await self._api.get("coordination.k8s.io/v1", "Lease", *scope)
        if live is not None and live.get("spec", {}).get("holderIdentity") == self._identity:
            await self._api.delete(live)


def _renewed(scope: Scope, live: JSON | None, identity: str, now: str) -> JSON:
    before = live or {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": scope.lease,
            "namespace": scope.namespace,
            "labels": {"app.kubernetes.io/part-of": "diffcache"},
        },
    }
    spec = before.get("spec", {})
    first = spec.get("holderIdentity") != identity
    return before | {
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": int(LEASE_SECONDS),
            "acquireTime": now if first else spec.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": spec.get("leaseTransitions", 0) + int(first and live is not None),
        }
    }


def _now() -> str:
    """Returns the present time in Kubernetes' MicroTime format."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
