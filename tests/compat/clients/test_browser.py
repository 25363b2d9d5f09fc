"""A real browser: scripts of other sites with presigned URLs, forms that upload, and a website.

Chromium, without a window, opens a page of a small server of ours; the page's script does what an
application would, and tells the server what came of it. Names of hosts all lead to this machine, so
that pages come from different sites.
"""

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

REPORT_SECONDS_MAX = 25
ALLOWED, OTHER = "app.test", "evil.test"
FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * 127.0.0.1",
)
SCRIPT = """
async function attempt([url, options]) {
    try {
        const answer = await fetch(url, options);
        return [answer.status, answer.headers.get("etag"), await answer.text()];
    } catch (error) {
        return error.name;
    }
}
async function report(told) {
    await fetch("/report", {method: "POST", body: JSON.stringify(told)});
}
"""


class Pages:
    """A server of pages, on every name of this machine; `reports` are what their scripts told."""

    def __init__(self) -> None:
        self.html = b""
        self.reports: queue.Queue = queue.Queue()
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                if url.path == "/done":
                    pages.reports.put(dict(urllib.parse.parse_qsl(url.query)))
                self.answer(200 if url.path in ("/", "/done") else 404, pages.html)

            def do_POST(self) -> None:
                pages.reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.answer(200, b"")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def script(self, script: str) -> None:
        """The page from now on."""
        self.html = f"<meta charset=utf-8><body><script>{SCRIPT}{script}</script>".encode()

    def url(self, site: str) -> str:
        return f"http://{site}:{self.port}"


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    serving = Pages()
    thread = threading.Thread(target=serving.server.serve_forever, daemon=True)
    thread.start()
    yield serving
    serving.server.shutdown()
    serving.server.server_close()
    thread.join()


@pytest.fixture
def browse(pages, tmp_path):
    """`browse(url)`: what the page there reports."""

    def open_page(url):
        with chromium(url, tmp_path) as log:
            try:
                return pages.reports.get(timeout=REPORT_SECONDS_MAX)
            except queue.Empty:
                pytest.fail(f"no report within {REPORT_SECONDS_MAX} s\n{log.read_text()[-3000:]}")

    return open_page


@contextmanager
def chromium(url, directory):
    """Chromium with a page open; gives the file of what it says."""
    log = directory / "chromium.log"
    profile = f"--user-data-dir={tempfile.mkdtemp(dir=directory)}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["chromium", *FLAGS, profile, url],
            stdout=output,
            stderr=output,
            env={**os.environ, "HOME": str(directory)},
            start_new_session=True,
        )
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def shared(s3, bucket, pages):
    """A bucket whose CORS rules allow the scripts of one site."""
    rule = {
        "AllowedOrigins": [pages.url(ALLOWED)],
        "AllowedMethods": ["GET", "PUT", "POST"],
        "AllowedHeaders": ["content-type", "x-amz-meta-*"],
        "ExposeHeaders": ["ETag"],
    }
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    return bucket


def presigned(server, bucket, key):
    """The attempts of a script: a PUT with a preflight, one with a header more than the rules
    allow, and a GET."""
    client = server.client(signature_version="s3v4")
    target = {"Bucket": bucket, "Key": key}
    described = {**target, "ContentType": "text/plain", "Metadata": {"a": "b"}}
    put = client.generate_presigned_url("put_object", described)
    get = client.generate_presigned_url("get_object", target)
    headers = {"content-type": "text/plain", "x-amz-meta-a": "b"}
    return [
        (put, {"method": "PUT", "headers": headers, "body": "from a script"}),
        (put, {"method": "PUT", "headers": {**headers, "x-other": "1"}, "body": "not this"}),
        (get, {}),
    ]


def test_scripts_of_an_allowed_site_write_and_read(s3, server, shared, pages, browse):
    attempts = json.dumps(presigned(server, shared, "a b+é"))
    script = (
        "(async () => { const told = []; for (const each of %s) told.push(await attempt(each));"
    )
    pages.script(script % attempts + "await report(told); })();")
    put, refused, get = browse(pages.url(ALLOWED))
    found = s3.get_object(Bucket=shared, Key="a b+é")
    assert (found["Body"].read(), found["Metadata"]) == (b"from a script", {"a": "b"})
    assert put == [200, found["ETag"], ""]
    assert refused == "TypeError"
    assert get == [200, found["ETag"], "from a script"]


def test_scripts_of_another_site_are_kept_out(s3, server, shared, pages, browse):
    s3.put_object(Bucket=shared, Key="k", Body=b"as it was")
    attempts = json.dumps(presigned(server, shared, "k"))
    pages.script(f"Promise.all({attempts}.map(attempt)).then(report);")
    assert browse(pages.url(OTHER)) == ["TypeError"] * 3
    assert s3.get_object(Bucket=shared, Key="k")["Body"].read() == b"as it was"
    # The page itself works: from the site that is allowed, the same script reads.
    assert browse(pages.url(ALLOWED))[2][0] == 200


FILE = 'a “quoted” "name" + é.txt'
FORM = """
const file = new File(["chosen by hand"], %s, {type: "text/plain"});
const form = document.createElement("form");
Object.assign(form, {method: "post", enctype: "multipart/form-data", action: %s});
for (const [name, value] of Object.entries(%s)) {
    const input = document.createElement("input");
    Object.assign(input, {type: "hidden", name, value});
    form.append(input);
}
const chosen = new DataTransfer();
chosen.items.add(file);
const input = document.createElement("input");
Object.assign(input, {type: "file", name: "file", files: chosen.files});
form.append(input);
document.body.append(form);
"""


def form_script(server, bucket, key, then, **fields):
    """A page with a form that uploads a file; `then` is what it does with it."""
    conditions = [{name: value} for name, value in fields.items()]
    client = server.client(signature_version="s3v4")
    post = client.generate_presigned_post(
        bucket, key, Fields=fields, Conditions=[*conditions, ["content-length-range", 1, 100]]
    )
    parts = (json.dumps(part) for part in (FILE, post["url"], post["fields"]))
    return FORM % tuple(parts) + then


def test_a_form_uploads_a_file_and_leads_back(s3, server, bucket, pages, browse):
    """Without any CORS rule, and from any site: a form is no script."""
    back = f"{pages.url(OTHER)}/done"
    fields = {"success_action_redirect": back, "Content-Type": "text/plain"}
    pages.script(
        form_script(
            server,
            bucket,
            "in/${filename}",
            "if (location.pathname === '/') form.submit();",
            **fields,
        )
    )
    found = browse(pages.url(OTHER))
    assert (found["bucket"], found["key"]) == (bucket, f"in/{FILE}")
    stored = s3.get_object(Bucket=bucket, Key=found["key"])
    assert stored["Body"].read() == b"chosen by hand"
    assert (stored["ContentType"], stored["ETag"]) == ("text/plain", found["etag"])


def test_a_script_uploads_a_form_and_reads_the_answer(s3, server, shared, pages, browse):
    then = "attempt([form.action, {method: 'POST', body: new FormData(form)}]).then(report);"
    pages.script(form_script(server, shared, "k", then, success_action_status="201"))
    status, etag, document = browse(pages.url(ALLOWED))
    stored = s3.get_object(Bucket=shared, Key="k")
    assert stored["Body"].read() == b"chosen by hand"
    assert (status, etag) == (201, stored["ETag"])
    assert f"<PostResponse><Location>{server.endpoint}/{shared}/k</Location>" in document
    # Another site's script can send such a form, as a plain form can, but not read the answer.
    assert browse(pages.url(OTHER)) == "TypeError"


WEBSITE = """<!doctype html><title>A website</title><script>
Promise.all(["docs", "missing", "old.html"].map(path => fetch(path).then(
    async answer => [answer.status, new URL(answer.url).pathname, await answer.text()]
))).then(told => navigator.sendBeacon(%s, JSON.stringify([document.title, told])));
</script>"""


def test_a_website(s3, server, bucket, put_policy, pages, browse):
    put_policy(bucket, {})
    s3.put_bucket_website(
        Bucket=bucket,
        WebsiteConfiguration={
            "IndexDocument": {"Suffix": "index.html"},
            "ErrorDocument": {"Key": "error.html"},
        },
    )
    report = json.dumps(f"{pages.url(OTHER)}/report")
    for key, body in {
        "index.html": WEBSITE % report,
        "docs/index.html": "all about it",
        "error.html": "nothing here",
    }.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body.encode(), ContentType="text/html")
    s3.put_object(Bucket=bucket, Key="old.html", WebsiteRedirectLocation="/docs/")
    port = urllib.parse.urlsplit(server.endpoint).port
    title, (docs, missing, old) = browse(f"http://{bucket}.{server.website_domain}:{port}/")
    assert title == "A website"
    assert docs == [200, "/docs/", "all about it"]
    assert missing == [403, "/missing", "nothing here"]
    assert old == [200, "/docs/", "all about it"]
