"""Terraform's S3 backend with `use_lockfile`: the requests it makes, and the program itself."""

import hashlib
import json
import shutil
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.conftest import BACKENDS

STATE, LOCK = "env/app.tfstate", "env/app.tfstate.tflock"
LOCKERS = 16


def put(http, path, body, **headers):
    """PutObject as Terraform 1.11 (AWS SDK for Go 2) sends it."""
    sha256 = b64encode(hashlib.sha256(body).digest()).decode()
    sent = {
        "accept-encoding": "identity",
        "content-type": "application/json",
        "x-amz-checksum-sha256": sha256,
        "x-amz-sdk-checksum-algorithm": "SHA256",
        "x-amz-server-side-encryption": "AES256",
        **headers,
    }
    reply = http.request("PUT", path, "x-id=PutObject", headers=sent, body=body)
    if reply.status == 200:
        assert reply.headers["x-amz-checksum-sha256"] == sha256
        assert reply.headers["x-amz-server-side-encryption"] == "AES256"
    return reply


def lock(http, bucket, who):
    information = json.dumps({"ID": who, "Operation": "OperationTypeApply"}).encode()
    return put(http, f"/{bucket}/{LOCK}", information, **{"if-none-match": "*"})


def holder(http, bucket):
    reply = http.request("GET", f"/{bucket}/{LOCK}", "x-id=GetObject")
    assert reply.status == 200
    return json.loads(reply.body)["ID"]


def test_the_requests_of_an_apply(http, bucket):
    listing = http.request("GET", f"/{bucket}", "list-type=2&max-keys=1000&prefix=env%3A%2F")
    assert (listing.status, b"<KeyCount>0</KeyCount>" in listing.body) == (200, True)
    assert lock(http, bucket, "first").status == 200
    refused = lock(http, bucket, "second")
    assert (refused.status, refused.code) == (412, "PreconditionFailed")
    assert holder(http, bucket) == "first"

    assert http.request("HEAD", f"/{bucket}/{STATE}").status == 404
    for serial in (1, 2):
        state = json.dumps({"version": 4, "serial": serial}).encode()
        assert put(http, f"/{bucket}/{STATE}", state).status == 200
        assert http.request("HEAD", f"/{bucket}/{STATE}").status == 200
        headers = {"x-amz-checksum-mode": "ENABLED"}
        assert http.request("GET", f"/{bucket}/{STATE}", headers=headers).body == state

    assert http.request("DELETE", f"/{bucket}/{LOCK}", "x-id=DeleteObject").status == 204
    gone = http.request("GET", f"/{bucket}/{LOCK}", "x-id=GetObject")
    assert (gone.status, gone.code) == (404, "NoSuchKey")
    assert lock(http, bucket, "second").status == 200


def test_of_many_that_lock_at_once_one_wins(server, bucket):
    doors = [server.http(each) for each in server.endpoints]
    with ThreadPoolExecutor(LOCKERS) as pool:
        replies = list(
            pool.map(lambda i: lock(doors[i % len(doors)], bucket, str(i)), range(LOCKERS))
        )
    winners = [str(i) for i, reply in enumerate(replies) if reply.status == 200]
    lost = {(reply.status, reply.code) for reply in replies if reply.status != 200}
    assert len(winners) == 1
    # 409 is for one that another overtook; Terraform tells its user about both in the same way.
    assert lost <= {(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")}
    assert {holder(door, bucket) for door in doors} == set(winners)


CONFIGURATION = """
terraform {
  backend "s3" {
    bucket         = "%(bucket)s"
    key            = "app.tfstate"
    region         = "us-east-1"
    use_lockfile   = true
    encrypt        = true
    use_path_style = true
    endpoints      = { s3 = "%(at)s", sts = "%(at)s", iam = "%(at)s" }
  }
}
variable "colour" {}
resource "terraform_data" "it" { input = var.colour }
output "colour" { value = terraform_data.it.output }
"""

# No package of Debian has Terraform; its resource here is built in, so nothing is downloaded.
if shutil.which("terraform"):

    @pytest.mark.parametrize("server", BACKENDS[:1], indirect=True, scope="session")
    def test_terraform_itself_keeps_its_state_and_respects_a_lock(
        server, s3, bucket, run, tmp_path
    ):
        environment = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }

        def terraform(*words):
            return run(["terraform", *words], environment)

        def apply(colour):
            flags = ("-auto-approve", "-input=false", "-no-color", "-lock-timeout=0s")
            terraform("apply", *flags, f"-var=colour={colour}")

        (tmp_path / "main.tf").write_text(CONFIGURATION % {"bucket": bucket, "at": server.endpoint})
        terraform("init", "-input=false")
        apply("red")
        information = json.dumps({"ID": "11-22", "Who": "somebody@else"})
        s3.put_object(Bucket=bucket, Key="app.tfstate.tflock", Body=information)
        with pytest.raises(AssertionError, match=r"(?s)PreconditionFailed.*somebody@else"):
            apply("blue")
        assert terraform("output", "-raw", "colour") == "red"
        terraform("force-unlock", "-force", "11-22")
        apply("green")
        terraform("workspace", "new", "other")
        terraform("workspace", "select", "default")
        assert terraform("output", "-raw", "colour") == "green"
        keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        assert keys == ["app.tfstate", "env:/other/app.tfstate"]
