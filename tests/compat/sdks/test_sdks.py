"""SDKs of other languages, each with tests of its own beside this file, and command lines written
in Go: what they are is pinned by hash in package-lock.json, go.sum and dependencies.sha256.
"""

import hashlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MIB = 1024 * 1024
INSTALL_SECONDS, RUN_SECONDS = 1200, 280


def run(argv, directory, environment=None, seconds=INSTALL_SECONDS):
    """Standard output of a program; what it said when it fails."""
    own = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "S3"))}
    done = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        cwd=directory,
        env={**own, **(environment or {})},
        timeout=seconds,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def copied(name, tmp_path_factory):
    """A copy of the SDK's directory, so that nothing is built among the sources."""
    return shutil.copytree(HERE / name, tmp_path_factory.mktemp("sdks") / name)


@pytest.fixture(scope="session")
def javascript(tmp_path_factory):
    directory = copied("javascript", tmp_path_factory)
    run(["npm", "ci", "--no-audit", "--no-fund"], directory)
    return directory


@pytest.fixture(scope="session")
def go(tmp_path_factory):
    directory = copied("go", tmp_path_factory)
    run(["go", "test", "-mod=readonly", "-c", "-o", "clients"], directory)
    return directory


@pytest.fixture(scope="session")
def java(tmp_path_factory):
    directory = copied("java", tmp_path_factory)
    run(["mvn", "-q", "-B", "-C", "dependency:copy-dependencies"], directory)
    libraries = directory / "target/dependency"
    expected = (HERE / "java/dependencies.sha256").read_text()
    found = sorted(
        (jar.name, hashlib.sha256(jar.read_bytes()).hexdigest()) for jar in libraries.iterdir()
    )
    assert "".join(f"{sha256}  {name}\n" for name, sha256 in found) == expected
    run(["javac", "-cp", f"{libraries}/*", "-d", "classes", "S3Clients.java"], directory)
    return directory


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    directory = copied("commands", tmp_path_factory)
    run(["go", "build", "-mod=readonly", "-o", f"{directory}/bin/", "tool"], directory)
    return directory / "bin"


@pytest.fixture
def environment(server):
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "S3_DOMAIN": server.domain,
    }


def test_aws_sdk_for_javascript(javascript, environment):
    run(["node", "--test"], javascript, environment, RUN_SECONDS)


def test_aws_sdk_for_go_and_minio_go(go, environment):
    run(["./clients", "-test.v"], go, environment, RUN_SECONDS)


def test_aws_sdk_for_java(java, environment, server):
    bucket = f"java-{secrets.token_hex(6)}"
    (java / "hosts").write_text(f"127.0.0.1 {bucket}.{server.domain}\n")
    run(
        ["java", "-Djdk.net.hosts.file=hosts", "-cp", "target/dependency/*:classes", "S3Clients"],
        java,
        {**environment, "S3_BUCKET_NAME": bucket},
        RUN_SECONDS,
    )


@pytest.fixture
def local(tmp_path):
    """A directory with a file that is sent in parts and a small one."""
    tree = tmp_path / "local"
    tree.mkdir()
    (tree / "big.bin").write_bytes(os.urandom(17 * MIB + 3))
    (tree / "ü & +.txt").write_bytes(b"hello")
    return tree


def contents(tree):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tree.iterdir()}


def test_s5cmd(commands, environment, local, tmp_path, s3):
    name = f"s5-{secrets.token_hex(6)}"

    def s5cmd(*words):
        return run([commands / "s5cmd", *words], tmp_path, environment | endpoint, RUN_SECONDS)

    endpoint = {"S3_ENDPOINT_URL": environment["AWS_ENDPOINT_URL"]}
    s5cmd("mb", f"s3://{name}")
    s5cmd("cp", "--part-size", "5", f"{local}/", f"s3://{name}/sent/")
    s5cmd("cp", f"s3://{name}/sent/*", f"s3://{name}/copied/")
    s5cmd("cp", f"s3://{name}/copied/*", "received/")
    assert contents(tmp_path / "received") == contents(local)
    s5cmd("sync", f"{local}/", f"s3://{name}/sent/")
    assert s5cmd("cat", f"s3://{name}/sent/ü & +.txt") == "hello"
    assert s5cmd("du", f"s3://{name}/*").startswith(f"{2 * (17 * MIB + 8)} bytes in 4 objects")
    s5cmd("mv", f"s3://{name}/copied/big.bin", f"s3://{name}/moved.bin")
    s5cmd("rm", f"s3://{name}/*")
    assert s5cmd("ls", f"s3://{name}") == ""
    s5cmd("rb", f"s3://{name}")
    assert name not in [found["Name"] for found in s3.list_buckets()["Buckets"]]


def test_mc(commands, environment, local, tmp_path, s3):
    name = f"mc-{secrets.token_hex(6)}"
    keys = f"{environment['AWS_ACCESS_KEY_ID']}:{environment['AWS_SECRET_ACCESS_KEY']}"
    host = environment["AWS_ENDPOINT_URL"].removeprefix("http://")
    alias = {"MC_HOST_store": f"http://{keys}@{host}", "MC_CONFIG_DIR": str(tmp_path / "mc")}

    def mc(*words):
        return run([commands / "mc", "--quiet", *words], tmp_path, alias, RUN_SECONDS)

    place = f"store/{name}"
    mc("mb", place)
    mc("version", "enable", place)
    mc("mirror", local, f"{place}/sent")
    mc("cp", "--recursive", f"{place}/sent/", f"{place}/copied/")
    mc("mirror", f"{place}/copied", "received")
    assert contents(tmp_path / "received") == contents(local)
    assert mc("diff", local, f"{place}/sent") == ""
    mc("tag", "set", f"{place}/sent/big.bin", "a=b")
    assert s3.get_object_tagging(Bucket=name, Key="sent/big.bin")["TagSet"] == [
        {"Key": "a", "Value": "b"}
    ]
    mc("anonymous", "set", "download", place)
    assert s3.get_bucket_policy_status(Bucket=name)["PolicyStatus"]["IsPublic"]
    mc("ilm", "rule", "add", "--expire-days", "30", place)
    mc("encrypt", "set", "sse-s3", place)
    mc("cp", f"{place}/sent/ü & +.txt", f"{place}/sent/big.bin")
    assert mc("cat", f"{place}/sent/big.bin") == "hello"
    mc("undo", "--force", f"{place}/sent/big.bin")
    assert s3.head_object(Bucket=name, Key="sent/big.bin")["ContentLength"] == 17 * MIB + 3
    mc("rm", "--recursive", "--force", "--versions", place)
    mc("rb", place)
    assert name not in [found["Name"] for found in s3.list_buckets()["Buckets"]]
