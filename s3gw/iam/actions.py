"""THE action table of the query API: one row per action of IAM and STS that is built.

`parameters` are those that the action has, a `!` behind those it must be given; what each may be
stands in `s3gw.iam.parameters`. `on` names what the action is authorized on: an entry of
`s3gw.iam.resources`, or "" where the action needs no permission or asks itself. `handler` is
`module:function` under `s3gw.iam`. The table in docs/iam.md is generated from this one.

Names, parameters and error forms are those of botocore's models; a test compares them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the query protocol: the name in signatures, version and XML namespace."""

    name: str
    version: str
    namespace: str


IAM = Service("iam", "2010-05-08", "https://iam.amazonaws.com/doc/2010-05-08/")
STS = Service("sts", "2011-06-15", "https://sts.amazonaws.com/doc/2011-06-15/")
SERVICES = (IAM, STS)


@dataclass(frozen=True)
class Action:
    """One action. `grows`: it adds metadata, and is refused when the engine is nearly full.
    `signed` is False for what brings its own proof of who asks."""

    name: str
    service: Service
    on: str
    parameters: str
    handler: str
    grows: bool = False
    signed: bool = True

    @property
    def iam_name(self) -> str:
        """What policies call it."""
        return f"{self.service.name}:{self.name}"

    @cached_property
    def names(self) -> frozenset[str]:
        """Its parameters."""
        return frozenset(name.rstrip("!") for name in self.parameters.split())

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Those it must be given."""
        return tuple(name[:-1] for name in self.parameters.split() if name.endswith("!"))


# One action, one line, however long.
# ruff: noqa: E501
# fmt: off
ACTIONS: tuple[Action, ...] = (
    # Users.
    Action("CreateUser", IAM, "new-user", "UserName! Path PermissionsBoundary Tags", "users:create_user", grows=True),
    Action("GetUser", IAM, "user", "UserName", "users:get_user"),
    Action("UpdateUser", IAM, "user", "UserName! NewPath NewUserName", "users:update_user"),
    Action("DeleteUser", IAM, "user", "UserName!", "users:delete_user"),
    Action("ListUsers", IAM, "users", "PathPrefix Marker MaxItems", "users:list_users"),
    Action("PutUserPermissionsBoundary", IAM, "user", "UserName! PermissionsBoundary!", "boundaries:put_user_permissions_boundary"),
    Action("DeleteUserPermissionsBoundary", IAM, "user", "UserName!", "boundaries:delete_user_permissions_boundary"),
    Action("TagUser", IAM, "user", "UserName! Tags!", "tags:tag_user", grows=True),
    Action("UntagUser", IAM, "user", "UserName! TagKeys!", "tags:untag_user"),
    Action("ListUserTags", IAM, "user", "UserName! Marker MaxItems", "tags:list_user_tags"),
    # Access keys.
    Action("CreateAccessKey", IAM, "user", "UserName", "access_keys:create_access_key", grows=True),
    Action("UpdateAccessKey", IAM, "user", "UserName AccessKeyId! Status!", "access_keys:update_access_key"),
    Action("DeleteAccessKey", IAM, "user", "UserName AccessKeyId!", "access_keys:delete_access_key"),
    Action("ListAccessKeys", IAM, "user", "UserName Marker MaxItems", "access_keys:list_access_keys"),
    Action("GetAccessKeyLastUsed", IAM, "key-owner", "AccessKeyId!", "access_keys:get_access_key_last_used"),
    # Groups.
    Action("CreateGroup", IAM, "new-group", "GroupName! Path", "groups:create_group", grows=True),
    Action("GetGroup", IAM, "group", "GroupName! Marker MaxItems", "groups:get_group"),
    Action("UpdateGroup", IAM, "group", "GroupName! NewPath NewGroupName", "groups:update_group"),
    Action("DeleteGroup", IAM, "group", "GroupName!", "groups:delete_group"),
    Action("ListGroups", IAM, "groups", "PathPrefix Marker MaxItems", "groups:list_groups"),
    Action("AddUserToGroup", IAM, "group", "GroupName! UserName!", "groups:add_user_to_group", grows=True),
    Action("RemoveUserFromGroup", IAM, "group", "GroupName! UserName!", "groups:remove_user_from_group"),
    Action("ListGroupsForUser", IAM, "user", "UserName! Marker MaxItems", "groups:list_groups_for_user"),
    # Inline policies.
    Action("PutUserPolicy", IAM, "user", "UserName! PolicyName! PolicyDocument!", "inline:put_user_policy", grows=True),
    Action("GetUserPolicy", IAM, "user", "UserName! PolicyName!", "inline:get_user_policy"),
    Action("DeleteUserPolicy", IAM, "user", "UserName! PolicyName!", "inline:delete_user_policy"),
    Action("ListUserPolicies", IAM, "user", "UserName! Marker MaxItems", "inline:list_user_policies"),
    Action("PutGroupPolicy", IAM, "group", "GroupName! PolicyName! PolicyDocument!", "inline:put_group_policy", grows=True),
    Action("GetGroupPolicy", IAM, "group", "GroupName! PolicyName!", "inline:get_group_policy"),
    Action("DeleteGroupPolicy", IAM, "group", "GroupName! PolicyName!", "inline:delete_group_policy"),
    Action("ListGroupPolicies", IAM, "group", "GroupName! Marker MaxItems", "inline:list_group_policies"),
    Action("PutRolePolicy", IAM, "role", "RoleName! PolicyName! PolicyDocument!", "inline:put_role_policy", grows=True),
    Action("GetRolePolicy", IAM, "role", "RoleName! PolicyName!", "inline:get_role_policy"),
    Action("DeleteRolePolicy", IAM, "role", "RoleName! PolicyName!", "inline:delete_role_policy"),
    Action("ListRolePolicies", IAM, "role", "RoleName! Marker MaxItems", "inline:list_role_policies"),
    # Managed policies.
    Action("CreatePolicy", IAM, "new-policy", "PolicyName! Path PolicyDocument! Description Tags", "policies:create_policy", grows=True),
    Action("GetPolicy", IAM, "policy", "PolicyArn!", "policies:get_policy"),
    Action("DeletePolicy", IAM, "policy", "PolicyArn!", "policies:delete_policy"),
    Action("ListPolicies", IAM, "policies", "Scope OnlyAttached PathPrefix PolicyUsageFilter Marker MaxItems", "policies:list_policies"),
    Action("ListEntitiesForPolicy", IAM, "policy", "PolicyArn! EntityFilter PathPrefix PolicyUsageFilter Marker MaxItems", "policies:list_entities_for_policy"),
    Action("CreatePolicyVersion", IAM, "policy", "PolicyArn! PolicyDocument! SetAsDefault", "policies:create_policy_version", grows=True),
    Action("GetPolicyVersion", IAM, "policy", "PolicyArn! VersionId!", "policies:get_policy_version"),
    Action("ListPolicyVersions", IAM, "policy", "PolicyArn! Marker MaxItems", "policies:list_policy_versions"),
    Action("SetDefaultPolicyVersion", IAM, "policy", "PolicyArn! VersionId!", "policies:set_default_policy_version"),
    Action("DeletePolicyVersion", IAM, "policy", "PolicyArn! VersionId!", "policies:delete_policy_version"),
    Action("TagPolicy", IAM, "policy", "PolicyArn! Tags!", "policies:tag_policy", grows=True),
    Action("UntagPolicy", IAM, "policy", "PolicyArn! TagKeys!", "policies:untag_policy"),
    Action("ListPolicyTags", IAM, "policy", "PolicyArn! Marker MaxItems", "policies:list_policy_tags"),
    # Attachments.
    Action("AttachUserPolicy", IAM, "user", "UserName! PolicyArn!", "attachments:attach_user_policy", grows=True),
    Action("DetachUserPolicy", IAM, "user", "UserName! PolicyArn!", "attachments:detach_user_policy"),
    Action("ListAttachedUserPolicies", IAM, "user", "UserName! PathPrefix Marker MaxItems", "attachments:list_attached_user_policies"),
    Action("AttachGroupPolicy", IAM, "group", "GroupName! PolicyArn!", "attachments:attach_group_policy", grows=True),
    Action("DetachGroupPolicy", IAM, "group", "GroupName! PolicyArn!", "attachments:detach_group_policy"),
    Action("ListAttachedGroupPolicies", IAM, "group", "GroupName! PathPrefix Marker MaxItems", "attachments:list_attached_group_policies"),
    Action("AttachRolePolicy", IAM, "role", "RoleName! PolicyArn!", "attachments:attach_role_policy", grows=True),
    Action("DetachRolePolicy", IAM, "role", "RoleName! PolicyArn!", "attachments:detach_role_policy"),
    Action("ListAttachedRolePolicies", IAM, "role", "RoleName! PathPrefix Marker MaxItems", "attachments:list_attached_role_policies"),
    # Roles.
    Action("CreateRole", IAM, "new-role", "RoleName! AssumeRolePolicyDocument! Path Description MaxSessionDuration PermissionsBoundary Tags", "roles:create_role", grows=True),
    Action("GetRole", IAM, "role", "RoleName!", "roles:get_role"),
    Action("UpdateRole", IAM, "role", "RoleName! Description MaxSessionDuration", "roles:update_role"),
    Action("DeleteRole", IAM, "role", "RoleName!", "roles:delete_role"),
    Action("ListRoles", IAM, "roles", "PathPrefix Marker MaxItems", "roles:list_roles"),
    Action("UpdateAssumeRolePolicy", IAM, "role", "RoleName! PolicyDocument!", "roles:update_assume_role_policy"),
    Action("PutRolePermissionsBoundary", IAM, "role", "RoleName! PermissionsBoundary!", "boundaries:put_role_permissions_boundary"),
    Action("DeleteRolePermissionsBoundary", IAM, "role", "RoleName!", "boundaries:delete_role_permissions_boundary"),
    Action("TagRole", IAM, "role", "RoleName! Tags!", "tags:tag_role", grows=True),
    Action("UntagRole", IAM, "role", "RoleName! TagKeys!", "tags:untag_role"),
    Action("ListRoleTags", IAM, "role", "RoleName! Marker MaxItems", "tags:list_role_tags"),
    Action("UpdateRoleDescription", IAM, "role", "RoleName! Description!", "roles:update_role_description"),
    # Identity providers.
    Action("CreateOpenIDConnectProvider", IAM, "new-provider", "Url! ClientIDList ThumbprintList Tags", "providers:create_provider", grows=True),
    Action("GetOpenIDConnectProvider", IAM, "provider", "OpenIDConnectProviderArn!", "providers:get_provider"),
    Action("DeleteOpenIDConnectProvider", IAM, "provider", "OpenIDConnectProviderArn!", "providers:delete_provider"),
    Action("ListOpenIDConnectProviders", IAM, "providers", "", "providers:list_providers"),
    Action("AddClientIDToOpenIDConnectProvider", IAM, "provider", "OpenIDConnectProviderArn! ClientID!", "providers:add_client_id", grows=True),
    Action("RemoveClientIDFromOpenIDConnectProvider", IAM, "provider", "OpenIDConnectProviderArn! ClientID!", "providers:remove_client_id"),
    Action("UpdateOpenIDConnectProviderThumbprint", IAM, "provider", "OpenIDConnectProviderArn! ThumbprintList!", "providers:update_thumbprint"),
    Action("TagOpenIDConnectProvider", IAM, "provider", "OpenIDConnectProviderArn! Tags!", "providers:tag_provider", grows=True),
    Action("UntagOpenIDConnectProvider", IAM, "provider", "OpenIDConnectProviderArn! TagKeys!", "providers:untag_provider"),
    Action("ListOpenIDConnectProviderTags", IAM, "provider", "OpenIDConnectProviderArn! Marker MaxItems", "providers:list_provider_tags"),
    # What there is none of.
    Action("GetLoginProfile", IAM, "user", "UserName", "absent:login_profile"),
    Action("DeleteLoginProfile", IAM, "user", "UserName", "absent:login_profile"),
    Action("ListMFADevices", IAM, "user", "UserName Marker MaxItems", "absent:list_mfa_devices"),
    Action("ListVirtualMFADevices", IAM, "account", "AssignmentStatus Marker MaxItems", "absent:list_virtual_mfa_devices"),
    Action("ListSSHPublicKeys", IAM, "user", "UserName Marker MaxItems", "absent:list_ssh_public_keys"),
    Action("ListSigningCertificates", IAM, "user", "UserName Marker MaxItems", "absent:list_signing_certificates"),
    Action("ListServiceSpecificCredentials", IAM, "user", "UserName ServiceName Marker MaxItems", "absent:list_service_specific_credentials"),
    Action("ListInstanceProfiles", IAM, "account", "PathPrefix Marker MaxItems", "absent:list_instance_profiles"),
    Action("ListInstanceProfilesForRole", IAM, "role", "RoleName! Marker MaxItems", "absent:list_instance_profiles_for_role"),
    Action("ListAccountAliases", IAM, "account", "Marker MaxItems", "absent:list_account_aliases"),
    # The account, and questions about policies.
    Action("GetAccountSummary", IAM, "account", "", "account:get_account_summary"),
    Action("SimulateCustomPolicy", IAM, "account", "PolicyInputList! PermissionsBoundaryPolicyInputList ActionNames! ResourceArns ContextEntries Marker MaxItems", "simulation:simulate_custom_policy"),
    Action("SimulatePrincipalPolicy", IAM, "simulated", "PolicySourceArn! PolicyInputList PermissionsBoundaryPolicyInputList ActionNames! ResourceArns ContextEntries Marker MaxItems", "simulation:simulate_principal_policy"),
    # Sessions.
    Action("GetCallerIdentity", STS, "", "", "sts:get_caller_identity"),
    Action("GetSessionToken", STS, "", "DurationSeconds", "sts:get_session_token"),
    Action("AssumeRole", STS, "", "RoleArn! RoleSessionName! PolicyArns Policy DurationSeconds Tags TransitiveTagKeys ExternalId SourceIdentity", "sts:assume_role"),
    Action("AssumeRoleWithWebIdentity", STS, "", "RoleArn! RoleSessionName! WebIdentityToken! PolicyArns Policy DurationSeconds", "sts:assume_role_with_web_identity", signed=False),
    Action("GetFederationToken", STS, "federated-user", "Name! Policy PolicyArns DurationSeconds Tags", "sts:get_federation_token"),
)
# fmt: on

# Why what the models have besides is not built, by what it is about.
NOT_BUILT: dict[str, str] = {
    "there are no passwords": """
        ChangePassword CreateLoginProfile DeleteAccountPasswordPolicy GetAccountPasswordPolicy
        UpdateAccountPasswordPolicy UpdateLoginProfile
    """,
    "there are no MFA devices": """
        CreateVirtualMFADevice DeactivateMFADevice DeleteVirtualMFADevice EnableMFADevice
        GetMFADevice ListMFADeviceTags ResyncMFADevice TagMFADevice UntagMFADevice
    """,
    "there are no machines with instance profiles": """
        AddRoleToInstanceProfile CreateInstanceProfile DeleteInstanceProfile GetInstanceProfile
        ListInstanceProfileTags RemoveRoleFromInstanceProfile TagInstanceProfile
        UntagInstanceProfile
    """,
    "SAML is not supported; OpenID Connect is": """
        AssumeRoleWithSAML CreateSAMLProvider DeleteSAMLProvider GetSAMLProvider
        ListSAMLProviderTags ListSAMLProviders TagSAMLProvider UntagSAMLProvider
        UpdateSAMLProvider
    """,
    "credentials other than access keys are of other services": """
        CreateServiceSpecificCredential DeleteSSHPublicKey DeleteServerCertificate
        DeleteServiceSpecificCredential DeleteSigningCertificate GetSSHPublicKey
        GetServerCertificate ListServerCertificateTags ListServerCertificates
        ResetServiceSpecificCredential TagServerCertificate UntagServerCertificate
        UpdateSSHPublicKey UpdateServerCertificate UpdateServiceSpecificCredential
        UpdateSigningCertificate UploadSSHPublicKey UploadServerCertificate
        UploadSigningCertificate
    """,
    "a store is one account, in no organization": """
        AssumeRoot CreateAccountAlias DeleteAccountAlias
        DisableOrganizationsRootCredentialsManagement DisableOrganizationsRootSessions
        EnableOrganizationsRootCredentialsManagement EnableOrganizationsRootSessions
        GenerateOrganizationsAccessReport GetAccountProperties GetOrganizationsAccessReport
        ListOrganizationsFeatures PutAccountProperties SetSecurityTokenServicePreferences
    """,
    "roles are not made by other services": """
        CreateServiceLinkedRole DeleteServiceLinkedRole GetRoleTemplateVersion
        GetServiceLinkedRoleDeletionStatus AcquireRole
    """,
    "requests for delegation belong to Amazon's console": """
        AcceptDelegationRequest AssociateDelegationRequest CreateDelegationRequest
        GetDelegatedAccessToken GetDelegationRequest GetHumanReadableSummary
        ListDelegationRequests RejectDelegationRequest SendDelegationToken UpdateDelegationRequest
    """,
    "the store is no identity provider": """
        DisableOutboundWebIdentityFederation EnableOutboundWebIdentityFederation
        GetOutboundWebIdentityFederationInfo GetWebIdentityToken
    """,
    "when credentials were used last is not kept": """
        GenerateCredentialReport GenerateServiceLastAccessedDetails GetCredentialReport
        GetServiceLastAccessedDetails GetServiceLastAccessedDetailsWithEntities
        ListPoliciesGrantingServiceAccess
    """,
    "not built yet": """
        DecodeAuthorizationMessage GetAccessKeyInfo GetAccountAuthorizationDetails
        GetContextKeysForCustomPolicy GetContextKeysForPrincipalPolicy
    """,
}
BY_NAME = {action.name: action for action in ACTIONS}
REASONS = {name: reason for reason, names in NOT_BUILT.items() for name in names.split()}


def load_handler(action: Action) -> Callable[..., Any]:
    """The function of an action."""
    module, _, function = action.handler.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"s3gw.iam.{module}"), function)
    return found
