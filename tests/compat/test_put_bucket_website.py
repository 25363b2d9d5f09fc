"""PutBucketWebsite: what is stored, and what is refused. How it is served: tests/server."""

WEBSITE = {
    "IndexDocument": {"Suffix": "index.html"},
    "ErrorDocument": {"Key": "errors/404.html"},
    "RoutingRules": [
        {
            "Condition": {"KeyPrefixEquals": "docs/"},
            "Redirect": {"ReplaceKeyPrefixWith": "documents/", "HttpRedirectCode": "301"},
        },
        {"Redirect": {"HostName": "a.test", "Protocol": "https", "ReplaceKeyWith": "x"}},
    ],
}


def test_what_is_set_is_read_back_and_can_be_replaced(s3, bucket):
    everything = {"RedirectAllRequestsTo": {"HostName": "a.test", "Protocol": "https"}}
    for website in (WEBSITE, everything):
        s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
        found = s3.get_bucket_website(Bucket=bucket)
        del found["ResponseMetadata"]
        assert found == website


def test_what_contradicts_itself_is_refused(s3, bucket, refused):
    everything = {"RedirectAllRequestsTo": {"HostName": "a.test"}}
    for website, code in (
        ({}, "InvalidArgument"),
        ({"IndexDocument": {"Suffix": "a/b"}}, "InvalidArgument"),
        ({**WEBSITE, **everything}, "InvalidArgument"),
        (
            {**WEBSITE, "RoutingRules": [{"Redirect": {"HttpRedirectCode": "200"}}]},
            "InvalidRequest",
        ),
    ):
        with refused(code, 400):
            s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
    with refused("NoSuchWebsiteConfiguration", 404):
        s3.get_bucket_website(Bucket=bucket)


def test_a_body_that_is_no_configuration_is_refused(http, bucket):
    for body in (b"", b"<Other/>", b"<WebsiteConfiguration><Unknown/></WebsiteConfiguration>"):
        reply = http.request("PUT", f"/{bucket}", "website", body=body)
        assert reply.status == 400
        assert reply.code == ("MissingRequestBodyError" if body == b"" else "MalformedXML")
