"""The account: `GetAccountSummary`."""

from __future__ import annotations

from s3gw import limits
from s3gw.iam.call import QueryCall
from s3gw.iam.documents import Entries, Result


async def get_account_summary(call: QueryCall) -> Result:
    """How many there are of what, and how many there may be. What this store does not have is
    counted as none by leaving it out."""
    store = call.store
    summary = Entries(
        Users=len(await store.list_users()),
        UsersQuota=limits.IAM_USERS_MAX,
        Groups=len(await store.list_groups()),
        GroupsQuota=limits.IAM_GROUPS_MAX,
        Roles=len(await store.list_roles()),
        RolesQuota=limits.IAM_ROLES_MAX,
        Policies=len(await store.list_policies()),
        PoliciesQuota=limits.IAM_POLICIES_MAX,
        Providers=len(await store.list_open_id_connect_providers()),
        AccessKeysPerUserQuota=limits.IAM_ACCESS_KEYS_PER_USER_MAX,
        GroupsPerUserQuota=limits.IAM_GROUPS_PER_USER_MAX,
        AttachedPoliciesPerUserQuota=limits.IAM_ATTACHED_POLICIES_MAX,
        AttachedPoliciesPerGroupQuota=limits.IAM_ATTACHED_POLICIES_MAX,
        AttachedPoliciesPerRoleQuota=limits.IAM_ATTACHED_POLICIES_MAX,
        UserPolicySizeQuota=limits.IAM_USER_INLINE_CHARACTERS_MAX,
        GroupPolicySizeQuota=limits.IAM_GROUP_INLINE_CHARACTERS_MAX,
        PolicySizeQuota=limits.IAM_MANAGED_POLICY_CHARACTERS_MAX,
        AssumeRolePolicySizeQuota=limits.IAM_TRUST_POLICY_CHARACTERS_MAX,
        PolicyVersionsInUse=len(await store.list_policies()),
        VersionsPerPolicyQuota=1,
        AccountMFAEnabled=0,
    )
    return {"SummaryMap": summary}
