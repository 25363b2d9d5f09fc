"""s3fs, through which pandas, Dask and others read and write."""

import pytest

from tests.compat.conftest import BACKENDS


@pytest.mark.parametrize("server", BACKENDS[:1], indirect=True, scope="session")
def test_files_are_written_read_moved_tagged_and_versioned(library, s3, bucket):
    library("with_s3fs.py", bucket)
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["v"]
