"""DuckDB: tables to Parquet and CSV in a bucket, whole and in partitions, and queries of them.

Run by test_tables.py with the libraries of requirements-clients.lock: `with_duckdb.py BUCKET`.
"""

import importlib.util
import os
import sys
from pathlib import Path

import duckdb

ROWS = 90_000


def httpfs() -> Path:
    """The extension that speaks S3, as the package brings it; DuckDB checks its signature."""
    found = importlib.util.find_spec("duckdb_extension_httpfs")
    assert found is not None
    assert found.origin is not None
    (extension,) = Path(found.origin).parent.rglob("httpfs.duckdb_extension")
    return extension


def connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"LOAD '{httpfs()}'")
    host = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    connection.execute(
        f"""CREATE SECRET (TYPE s3, ENDPOINT '{host}', URL_STYLE path, USE_SSL false,
            KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}', REGION 'us-east-1',
            SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}')"""
    )
    return connection


def main(bucket: str) -> None:
    connection = connect()

    def rows(query: str) -> list[tuple]:
        return connection.execute(query).fetchall()

    rows(f"CREATE TABLE t AS SELECT range n, n % 3 part, md5(n::VARCHAR) h FROM range({ROWS})")
    one = f"s3://{bucket}/one ü.parquet"
    rows(f"COPY t TO '{one}' (FORMAT parquet, ROW_GROUP_SIZE 10_000)")
    assert rows(f"SELECT * FROM '{one}' EXCEPT SELECT * FROM t") == []
    assert rows(f"SELECT count(*), sum(n) FROM '{one}'") == [(ROWS, ROWS * (ROWS - 1) // 2)]
    assert rows(f"SELECT h FROM '{one}' WHERE n = 54321") == rows("SELECT h FROM t WHERE n = 54321")

    rows(f"COPY t TO 's3://{bucket}/parts' (FORMAT parquet, PARTITION_BY part)")
    parts = f"read_parquet('s3://{bucket}/parts/*/*.parquet', hive_partitioning = true)"
    assert rows(f"SELECT part, count(*) FROM {parts} WHERE part = 1 GROUP BY part") == [
        (1, ROWS // 3)
    ]

    rows(f"COPY t TO 's3://{bucket}/t.csv'")
    assert rows(f"SELECT * FROM 's3://{bucket}/t.csv' EXCEPT SELECT * FROM t") == []
    files = rows(f"SELECT file FROM glob('s3://{bucket}/**') ORDER BY file")
    print("\n".join(name.removeprefix(f"s3://{bucket}/") for (name,) in files))


main(*sys.argv[1:])
