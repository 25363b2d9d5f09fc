"""Tables in buckets: DuckDB, and pyarrow with the C++ SDK of Amazon."""

import os

import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from pyarrow.fs import FileSelector, FileType, S3FileSystem

from tests.compat.conftest import BACKENDS, REGION

MIB = 1024 * 1024
ROWS = 100_000
pytestmark = pytest.mark.parametrize("server", BACKENDS[:1], indirect=True, scope="session")


@pytest.fixture
def files(server):
    return S3FileSystem(
        access_key=server.access_key,
        secret_key=server.secret_key,
        endpoint_override=server.endpoint,
        scheme="http",
        region=REGION,
    )


@pytest.fixture
def table():
    numbers = range(ROWS)
    return pyarrow.table(
        {"n": numbers, "part": [n % 3 for n in numbers], "s": [f"row {n}" for n in numbers]}
    )


def test_duckdb_writes_and_queries_tables(library, bucket):
    partitions = [f"parts/part={part}/data_0.parquet" for part in range(3)]
    assert library("with_duckdb.py", bucket).splitlines() == [
        "one ü.parquet",
        *partitions,
        "t.csv",
    ]


def test_pyarrow_reads_what_it_wrote(files, bucket, table):
    name = f"{bucket}/one ü.parquet"
    pyarrow.parquet.write_table(table, name, filesystem=files, row_group_size=10_000)
    assert pyarrow.parquet.read_table(name, filesystem=files).equals(table)
    row = pyarrow.parquet.read_table(
        name, filesystem=files, columns=["s"], filters=[("n", "==", 54321)]
    )
    assert row.to_pydict() == {"s": ["row 54321"]}


def test_pyarrow_reads_one_partition_of_a_data_set(files, bucket, table):
    pyarrow.dataset.write_dataset(
        table,
        f"{bucket}/set",
        filesystem=files,
        format="parquet",
        partitioning=["part"],
        partitioning_flavor="hive",
    )
    read = pyarrow.dataset.dataset(f"{bucket}/set", filesystem=files, partitioning="hive")
    one = read.to_table(filter=pyarrow.dataset.field("part") == 1)
    assert one["n"].to_pylist() == list(range(1, ROWS, 3))


def test_pyarrow_streams_in_parts_with_a_checksum_of_the_whole(files, s3, bucket):
    body = os.urandom(23 * MIB)
    with files.open_output_stream(f"{bucket}/big") as stream:
        stream.write(body)
    found = s3.get_object(Bucket=bucket, Key="big", ChecksumMode="ENABLED")
    assert found["Body"].read() == body  # boto3 verifies the checksum, too
    assert found["ETag"].endswith('-3"')
    assert (found["ChecksumType"], "ChecksumCRC64NVME" in found) == ("FULL_OBJECT", True)
    with files.open_input_file(f"{bucket}/big") as file:
        file.seek(9 * MIB)
        assert file.read(100) == body[9 * MIB :][:100]


def test_pyarrow_manages_files_and_directories(files, bucket):
    with files.open_output_stream(f"{bucket}/a/one") as stream:
        stream.write(b"one")
    files.copy_file(f"{bucket}/a/one", f"{bucket}/a/two")
    files.move(f"{bucket}/a/two", f"{bucket}/b/thrëe +")
    files.create_dir(f"{bucket}/empty")
    found = files.get_file_info(FileSelector(bucket, recursive=True))
    kinds = {each.path.removeprefix(f"{bucket}/"): each.type for each in found}
    assert kinds == {
        "a": FileType.Directory,
        "a/one": FileType.File,
        "b": FileType.Directory,
        "b/thrëe +": FileType.File,
        "empty": FileType.Directory,
    }
    assert files.get_file_info(f"{bucket}/missing").type == FileType.NotFound
    files.delete_dir_contents(bucket)
    assert files.get_file_info(FileSelector(bucket, recursive=True)) == []
