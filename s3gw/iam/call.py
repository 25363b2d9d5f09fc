"""What an action gets: the seam between the query protocol and IAM and STS.

An action is `async def name(call: QueryCall) -> Result | None`. By then the request is
authenticated, its parameters are validated, and it is authorized for the resource that its row in
the table names; what else it touches it asks for with `require`. Actions raise QueryError or the
errors of `s3gw.identities`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from s3gw.auth.patterns import Values
from s3gw.auth.policy import Principal, RequestContext, principal_values
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Permissions, decide
from s3gw.iam.actions import Action
from s3gw.iam.errors import AccessDenied
from s3gw.iam.parameters import Parameters
from s3gw.identities.root import ACCOUNT_ID
from s3gw.identities.sessions import Session
from s3gw.identities.store import IdentityStore
from s3gw.identities.view import Identities
from s3gw.identities.web_identity import WebIdentities

NO_VALUES: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Services:
    """What actions work with. `store` is what is kept, `view` what this process follows of it."""

    store: IdentityStore
    view: Identities
    web: WebIdentities
    region: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and by which credentials. `session` is that of temporary ones."""

    principal: Principal
    permissions: Permissions = NO_PERMISSIONS
    access_key: str = ""
    session: Session | None = None


@dataclass(slots=True)
class QueryCall:
    """One request. `now` is Unix seconds; `address` that of the peer. `resource` is the ARN that
    the table's row named."""

    action: Action
    parameters: Parameters
    asker: Asker
    services: Services
    now: float
    address: str
    secure: bool
    agent: str = ""
    resource: str = ""
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def principal(self) -> Principal:
        return self.asker.principal

    @property
    def store(self) -> IdentityStore:
        return self.services.store

    @property
    def now_ms(self) -> int:
        return int(self.now * 1000)

    def context(self, action: str, resource: str, more: Values = NO_VALUES) -> RequestContext:
        """What is asked, as policies see it."""
        return RequestContext(
            self.principal, action, resource, {**self.request_values(), **self.values, **more}
        )

    def request_values(self) -> dict[str, tuple[str, ...]]:
        """The condition keys of the request itself."""
        values = {
            "aws:currenttime": (
                datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            ),
            "aws:epochtime": (str(int(self.now)),),
            "aws:securetransport": ("true" if self.secure else "false",),
            "aws:requestedregion": (self.services.region,),
            "aws:resourceaccount": (ACCOUNT_ID,),
            "aws:viaawsservice": ("false",),
            "aws:principalisawsservice": ("false",),
        }
        if self.address:
            values["aws:sourceip"] = (self.address,)
        if self.agent:
            values["aws:useragent"] = (self.agent,)
        return values | principal_values(self.principal)

    def require(self, resource: str, *, action: str = "", values: Values = NO_VALUES) -> None:
        """Authorize the action (or another one) on a resource. Raises AccessDenied; only the
        account itself is told which statement decided."""
        context = self.context(action or self.action.iam_name, resource, values)
        decision = decide(context, self.asker.permissions)
        if decision.allowed:
            return
        if self.principal.is_root:
            raise AccessDenied(decision.explain(context))
        raise AccessDenied(
            f"User: {self.principal.arn or 'anonymous'} is not authorized to perform: "
            f"{context.action} on resource: {resource}"
        )
