"""The tables of docs/iam.md, generated from the action table.

`python -m s3gw.iam.table` prints them.
"""

from __future__ import annotations

from s3gw.iam.actions import ACTIONS, NOT_BUILT

ON = {
    "": "–",
    "account": "`*`",
    "federated-user": "the federated user",
    "key-owner": "the key's user",
    "simulated": "whose policies are asked about",
}
# What to know of one that does not do all that Amazon's does.
REMARKS = {
    "CreatePolicyVersion": "with `SetAsDefault`: one version is kept",
    "DeleteLoginProfile": "nobody has one",
    "GetAccessKeyLastUsed": "without a date: it is not kept",
    "GetLoginProfile": "nobody has one",
    "ListAccountAliases": "there are none",
    "ListInstanceProfiles": "there are none",
    "ListInstanceProfilesForRole": "there are none",
    "ListMFADevices": "there are none",
    "ListSSHPublicKeys": "there are none",
    "ListServiceSpecificCredentials": "there are none",
    "ListSigningCertificates": "there are none",
    "ListVirtualMFADevices": "there are none",
    "SetDefaultPolicyVersion": "the one version that is kept",
    "UpdateGroup": "the path; groups cannot be renamed",
}


def tables() -> str:
    """Markdown: the actions that are built, then those that are not, ending in a newline."""
    lines = ["| action | authorized on | parameters | |", "|---|---|---|---|"]
    for action in sorted(ACTIONS, key=lambda action: (action.service.name, action.name)):
        on = ON.get(action.on, action.on.replace("-", " "))
        parameters = action.parameters.replace("!", "")
        remark = REMARKS.get(action.name, "")
        lines.append(f"| `{action.iam_name}` | {on} | {parameters} | {remark} |")
    lines += ["", "| not built | |", "|---|---|"]
    for reason, names in NOT_BUILT.items():
        lines.append(f"| {reason} | {', '.join(sorted(names.split()))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
