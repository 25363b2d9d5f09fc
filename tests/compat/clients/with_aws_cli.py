"""Many commands of the aws cli in one process, which loads its models once instead of every time.

`with_aws_cli.py '[["s3", "ls"], …]'` prints a list of [exit code, standard output, errors]. The
commands go through the entry point that `aws` itself calls.
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

from awscli.clidriver import create_clidriver


def main(commands: str) -> None:
    driver = create_clidriver()
    answers = []
    for words in json.loads(commands):
        said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        errors = io.StringIO()
        with redirect_stdout(said), redirect_stderr(errors):
            code = driver.main(words)
        answers.append((code, said.buffer.getvalue().decode(), errors.getvalue()))
    print(json.dumps(answers))


main(*sys.argv[1:])
