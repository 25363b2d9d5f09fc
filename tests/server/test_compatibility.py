from s3gw.server.compatibility import table
from s3gw.server.routes import ROWS


def test_table_has_one_line_for_every_operation() -> None:
    header, rule, *lines = table().splitlines()
    assert (header, rule) == ("| operation | status |", "|---|---|")
    assert len(lines) == len(ROWS)
    assert lines == sorted(lines)


def test_status_is_built_the_fresh_answer_or_a_reasoned_501() -> None:
    rows = table()
    assert "| GetObject | built |\n" in rows
    assert "without the setting: `ReplicationConfigurationNotFoundError` |\n" in rows
    assert "| GetBucketAbac | answers as for a resource without the setting: `AbacStatus` |" in rows
    assert "| CreateSession | 501: S3 Express One Zone |\n" in rows
    assert "| SelectObjectContent | 501: closed to new customers by Amazon |\n" in rows
    assert "| PutBucketRequestPayment | built: stored and returned; nobody is charged |" in rows
    assert "| GetBucketLifecycleConfiguration / GetBucketLifecycle | built |\n" in rows
