"""The action table against botocore's models: nothing missing, nothing of another name."""

from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from s3gw.iam.actions import ACTIONS, BY_NAME, REASONS, SERVICES, Action, load_handler
from s3gw.iam.parameters import SPECIFICATIONS
from s3gw.iam.resources import RESOURCES
from s3gw.iam.table import REMARKS, tables

MODELS = {
    service.name: botocore.session.get_session().get_service_model(service.name)
    for service in SERVICES
}
# What an action of the model can be asked besides, and this one refuses.
NOT_TAKEN = {
    "AssumeRole": {"MinimumSessionTokenSize", "ProvidedContexts", "SerialNumber", "TokenCode"},
    "AssumeRoleWithWebIdentity": {"MinimumSessionTokenSize", "ProviderId"},
    "GetFederationToken": {"MinimumSessionTokenSize"},
    "ListServiceSpecificCredentials": {"AllUsers"},
    "GetSessionToken": {"MinimumSessionTokenSize", "SerialNumber", "TokenCode"},
    "SimulateCustomPolicy": {
        "CallerArn",
        "OrderedOrganizationPolicyInputList",
        "ResourceHandlingOption",
        "ResourceOwner",
        "ResourcePolicy",
    },
    "SimulatePrincipalPolicy": {
        "CallerArn",
        "PolicyExclusionList",
        "ResourceHandlingOption",
        "ResourceOwner",
        "ResourcePolicy",
    },
}


def input_of(action: Action) -> Any:
    return MODELS[action.service.name].operation_model(action.name).input_shape


def test_every_action_of_the_models_is_built_or_has_its_reason() -> None:
    known = {name for model in MODELS.values() for name in model.operation_names}
    assert known == BY_NAME.keys() | REASONS.keys()
    assert not BY_NAME.keys() & REASONS.keys()
    assert len(BY_NAME) == len(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_an_action_has_the_parameters_of_the_model(action: Action) -> None:
    shape = input_of(action)
    members = set(shape.members) if shape else set()
    assert members - action.names == NOT_TAKEN.get(action.name, set())
    assert action.names <= members
    assert set(action.required) == (set(shape.required_members) if shape else set())
    assert action.names <= SPECIFICATIONS.keys()
    assert action.on in RESOURCES or action.service.name == "sts"
    assert callable(load_handler(action))


def test_every_specification_and_resource_is_of_some_action() -> None:
    assert frozenset().union(*(action.names for action in ACTIONS)) == SPECIFICATIONS.keys()
    assert {action.on for action in ACTIONS} - {""} == RESOURCES.keys()


def test_the_services_are_those_of_the_models() -> None:
    for service in SERVICES:
        metadata = MODELS[service.name].metadata
        assert service.version == metadata["apiVersion"]
        assert service.namespace == metadata["xmlNamespace"]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_an_action_has_a_test(action: Action) -> None:
    """It is called by its name in a client of boto3, or by that of its kind."""
    tests = Path(__file__).parent
    texts = "".join(
        (tests / f"test_{name}.py").read_text()
        for name in ("iam_actions", "sts", "web_identity_sessions")
    )
    name = xform_name(action.name)
    names = {name, *(name.replace(kind, "{kind}") for kind in ("user", "group", "role"))}
    assert any(each in texts for each in names)


def test_the_document_lists_the_actions() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "iam.md").read_text()
    between = text.split("<!-- actions:begin -->\n\n")[1].split("\n<!-- actions:end -->")[0]
    assert between == tables()
    assert REMARKS.keys() <= BY_NAME.keys()
