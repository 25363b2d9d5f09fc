"""Identities as they are kept: every read and every change, in one object.

What each kind can do is in a module of its own; how a change is committed is told in
`s3gw.identities.changes`. Names are those of the IAM API. Who may call is not asked here.
"""

from __future__ import annotations

from s3gw.identities.access_keys import AccessKeys
from s3gw.identities.attachments import Attachments
from s3gw.identities.managed import Managed
from s3gw.identities.providers import Providers
from s3gw.identities.roles import Roles
from s3gw.identities.users import Groups, Users


class IdentityStore(Users, Groups, AccessKeys, Managed, Attachments, Roles, Providers):
    """`IdentityStore(store, clock_ms, changed)`; see `Changes`."""
