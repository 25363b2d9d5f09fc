// AWS SDK for JavaScript v3, with its defaults (checksums in trailers), against $AWS_ENDPOINT_URL.
// One test per habit of the SDK; each has a bucket of its own, emptied and removed with the SDK.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { Readable } from "node:stream";
import { test } from "node:test";

import {
  CopyObjectCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectAttributesCommand,
  GetObjectCommand,
  GetObjectTaggingCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListBucketsCommand,
  ListObjectVersionsCommand,
  NoSuchKey,
  NotFound,
  PutBucketVersioningCommand,
  PutObjectCommand,
  PutObjectTaggingCommand,
  S3Client,
  S3ServiceException,
  paginateListObjectsV2,
  waitUntilBucketExists,
  waitUntilObjectNotExists,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { createPresignedPost } from "@aws-sdk/s3-presigned-post";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const MIB = 1024 * 1024;
const endpoint = process.env.AWS_ENDPOINT_URL;
const domain = process.env.S3_DOMAIN;
const s3 = new S3Client({ forcePathStyle: true, maxAttempts: 1 });

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const read = async (reply) => Buffer.from(await reply.Body.transformToByteArray());
const get = async (Bucket, Key, more = {}) => read(await s3.send(new GetObjectCommand({ Bucket, Key, ...more })));

async function empty(client, Bucket) {
  const { Versions = [], DeleteMarkers = [] } = await client.send(new ListObjectVersionsCommand({ Bucket }));
  const Objects = [...Versions, ...DeleteMarkers].map(({ Key, VersionId }) => ({ Key, VersionId }));
  if (Objects.length === 0) return;
  const { Errors = [] } = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
  assert.deepEqual(Errors, []);
}

function withBucket(name, check, client = s3) {
  test(name, async () => {
    const Bucket = `js-${randomBytes(6).toString("hex")}`;
    await client.send(new CreateBucketCommand({ Bucket }));
    try {
      await check(Bucket);
    } finally {
      await empty(client, Bucket);
      await client.send(new DeleteBucketCommand({ Bucket }));
    }
  });
}

async function refused(promise, kind, name, status) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    assert.equal(error.name, name);
    assert.equal(error.$metadata.httpStatusCode, status);
    return true;
  });
}

withBucket("buckets are made, found, listed and refused", async (Bucket) => {
  await waitUntilBucketExists({ client: s3, maxWaitTime: 10 }, { Bucket });
  const head = await s3.send(new HeadBucketCommand({ Bucket }));
  assert.equal(head.BucketRegion, "us-east-1");
  const { Buckets } = await s3.send(new ListBucketsCommand({ Prefix: Bucket }));
  assert.deepEqual(Buckets.map((bucket) => bucket.Name), [Bucket]);
  assert.ok(Buckets[0].CreationDate instanceof Date);
  await refused(s3.send(new HeadBucketCommand({ Bucket: `${Bucket}-not` })), NotFound, "NotFound", 404);
});

withBucket("objects of every kind of body come back", async (Bucket) => {
  const bytes = randomBytes(300_001);
  const bodies = {
    string: ["grüße", Buffer.from("grüße")],
    empty: ["", Buffer.alloc(0)],
    bytes: [bytes, bytes],
    "a b+c/ü": [bytes.subarray(0, 7), bytes.subarray(0, 7)],
  };
  for (const [Key, [Body, expected]] of Object.entries(bodies)) {
    const put = await s3.send(new PutObjectCommand({ Bucket, Key, Body, Metadata: { Who: "me" }, ContentType: "a/b" }));
    assert.match(put.ChecksumCRC32, /=$/);
    const reply = await s3.send(new GetObjectCommand({ Bucket, Key, ChecksumMode: "ENABLED" }));
    assert.equal(reply.ChecksumCRC32, put.ChecksumCRC32);
    assert.equal(reply.ContentType, "a/b");
    assert.deepEqual(await read(reply), expected);
    const head = await s3.send(new HeadObjectCommand({ Bucket, Key }));
    assert.equal(head.ContentLength, expected.length);
    assert.ok(head.LastModified instanceof Date);
  }
});

withBucket("streams of known length carry their checksum in a trailer", async (Bucket) => {
  const bytes = randomBytes(2 * MIB + 11);
  for (const ChecksumAlgorithm of [undefined, "CRC32C", "CRC64NVME", "SHA1", "SHA256"]) {
    const Body = Readable.from([bytes.subarray(0, MIB), bytes.subarray(MIB)]);
    const put = { Bucket, Key: `k-${ChecksumAlgorithm}`, Body, ContentLength: bytes.length, ChecksumAlgorithm };
    const reply = await s3.send(new PutObjectCommand(put));
    assert.ok(reply[`Checksum${ChecksumAlgorithm ?? "CRC32"}`]);
    assert.equal(sha256(await get(Bucket, put.Key, { ChecksumMode: "ENABLED" })), sha256(bytes));
    const attributes = { Bucket, Key: put.Key, ObjectAttributes: ["Checksum", "ObjectSize"] };
    const told = await s3.send(new GetObjectAttributesCommand(attributes));
    assert.equal(told.ObjectSize, bytes.length);
    assert.equal(told.Checksum[`Checksum${ChecksumAlgorithm ?? "CRC32"}`], reply[`Checksum${ChecksumAlgorithm ?? "CRC32"}`]);
  }
});

withBucket("lib-storage uploads streams of unknown length in parts", async (Bucket) => {
  for (const size of [0, 3, 5 * MIB, 11 * MIB + 1]) {
    const bytes = randomBytes(size);
    const Body = Readable.from((function* () {
      for (let at = 0; at < size; at += 100_000) yield bytes.subarray(at, at + 100_000);
    })());
    const upload = new Upload({ client: s3, params: { Bucket, Key: `k-${size}`, Body }, partSize: 5 * MIB });
    const done = await upload.done();
    assert.equal(/-\d+"$/.test(done.ETag), size > 5 * MIB);
    assert.equal(sha256(await get(Bucket, `k-${size}`)), sha256(bytes));
  }
});

withBucket("presigned URLs get, put and tell", async (Bucket) => {
  const bytes = randomBytes(1000);
  const put = await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key: "a b/ü" }), { expiresIn: 60 });
  assert.equal((await fetch(put, { method: "PUT", body: bytes })).status, 200);
  const command = new GetObjectCommand({ Bucket, Key: "a b/ü", ResponseContentType: "x/y" });
  const reply = await fetch(await getSignedUrl(s3, command, { expiresIn: 60 }));
  assert.equal(reply.headers.get("content-type"), "x/y");
  assert.deepEqual(Buffer.from(await reply.arrayBuffer()), bytes);
  const head = await getSignedUrl(s3, new HeadObjectCommand({ Bucket, Key: "a b/ü" }));
  assert.equal((await fetch(head, { method: "HEAD" })).headers.get("content-length"), "1000");
  assert.equal((await fetch(put.replace(/Signature=./, "Signature=g"), { method: "PUT", body: bytes })).status, 403);
});

withBucket("presigned forms upload what they allow", async (Bucket) => {
  const Conditions = [["content-length-range", 1, 100], ["starts-with", "$Content-Type", "text/"]];
  const { url, fields } = await createPresignedPost(s3, { Bucket, Key: "in/${filename}", Conditions });
  const send = (content) => {
    const form = new FormData();
    Object.entries({ ...fields, "Content-Type": "text/plain" }).forEach(([name, value]) => form.append(name, value));
    form.append("file", new Blob([content]), "f.txt");
    return fetch(url, { method: "POST", body: form });
  };
  assert.equal((await send("hello")).status, 204);
  assert.equal((await get(Bucket, "in/f.txt")).toString(), "hello");
  assert.equal((await send("x".repeat(101))).status, 400);
});

withBucket("listings are paginated, with prefixes", async (Bucket) => {
  const keys = Array.from({ length: 7 }, (_, number) => `dir ${number % 3}/ü&${number}`);
  await Promise.all(keys.map((Key) => s3.send(new PutObjectCommand({ Bucket, Key, Body: Key }))));
  const found = [];
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 2 }, { Bucket })) {
    assert.ok(page.KeyCount <= 2);
    found.push(...page.Contents.map((entry) => entry.Key));
  }
  assert.deepEqual(found, keys.toSorted());
  const prefixes = [];
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 1 }, { Bucket, Delimiter: "/", EncodingType: "url" })) {
    prefixes.push(...(page.CommonPrefixes ?? []).map((entry) => decodeURIComponent(entry.Prefix.replaceAll("+", " "))));
  }
  assert.deepEqual(prefixes, ["dir 0/", "dir 1/", "dir 2/"]);
});

withBucket("versions are kept, read and removed", async (Bucket) => {
  await s3.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: "Enabled" } }));
  const first = await s3.send(new PutObjectCommand({ Bucket, Key: "k", Body: "1" }));
  const second = await s3.send(new PutObjectCommand({ Bucket, Key: "k", Body: "2" }));
  assert.notEqual(first.VersionId, second.VersionId);
  const gone = await s3.send(new DeleteObjectCommand({ Bucket, Key: "k" }));
  assert.equal(gone.DeleteMarker, true);
  await refused(s3.send(new GetObjectCommand({ Bucket, Key: "k" })), NoSuchKey, "NoSuchKey", 404);
  assert.equal((await get(Bucket, "k", { VersionId: first.VersionId })).toString(), "1");
  await s3.send(new DeleteObjectCommand({ Bucket, Key: "k", VersionId: gone.VersionId }));
  assert.equal((await get(Bucket, "k")).toString(), "2");
});

withBucket("conditional writes have one winner", async (Bucket) => {
  const race = Array.from({ length: 8 }, (_, number) =>
    s3.send(new PutObjectCommand({ Bucket, Key: "lock", Body: `${number}`, IfNoneMatch: "*" })));
  const won = (await Promise.allSettled(race)).filter((one) => one.status === "fulfilled");
  assert.equal(won.length, 1);
  await refused(
    s3.send(new PutObjectCommand({ Bucket, Key: "lock", Body: "x", IfNoneMatch: "*" })),
    S3ServiceException, "PreconditionFailed", 412);
  const changed = await s3.send(new PutObjectCommand({ Bucket, Key: "lock", Body: "y", IfMatch: won[0].value.ETag }));
  await refused(
    s3.send(new GetObjectCommand({ Bucket, Key: "lock", IfNoneMatch: changed.ETag })), S3ServiceException, "Unknown", 304);
});

withBucket("copies, ranges and tags", async (Bucket) => {
  const bytes = randomBytes(70_000);
  await s3.send(new PutObjectCommand({ Bucket, Key: "from/ü +", Body: bytes, Tagging: "a=1&b=c%20d" }));
  const CopySource = `${Bucket}/${encodeURIComponent("from/ü +")}`;
  const copied = await s3.send(new CopyObjectCommand({ Bucket, Key: "to", CopySource }));
  assert.equal(copied.CopyObjectResult.ETag, `"${createHash("md5").update(bytes).digest("hex")}"`);
  assert.deepEqual(await get(Bucket, "to", { Range: "bytes=10-19" }), bytes.subarray(10, 20));
  const { TagSet } = await s3.send(new GetObjectTaggingCommand({ Bucket, Key: "to" }));
  assert.deepEqual(TagSet, [{ Key: "a", Value: "1" }, { Key: "b", Value: "c d" }]);
  const Tagging = { TagSet: [{ Key: "<x>", Value: "&" }] };
  await s3.send(new PutObjectTaggingCommand({ Bucket, Key: "to", Tagging })).then(assert.fail, (error) => {
    assert.equal(error.name, "InvalidTag");
  });
  await s3.send(new PutObjectTaggingCommand({ Bucket, Key: "to", Tagging: { TagSet: [{ Key: "x", Value: "/@" }] } }));
  const told = await s3.send(new GetObjectTaggingCommand({ Bucket, Key: "to" }));
  assert.deepEqual(told.TagSet, [{ Key: "x", Value: "/@" }]);
  await refused(
    s3.send(new GetObjectCommand({ Bucket, Key: "to", Range: "bytes=70000-" })), S3ServiceException, "InvalidRange", 416);
  await s3.send(new DeleteObjectCommand({ Bucket, Key: "to" }));
  await waitUntilObjectNotExists({ client: s3, maxWaitTime: 10 }, { Bucket, Key: "to" });
});

// Buckets as host names, which no name server knows here: every name is this machine.
const here = (host, options, found) =>
  options.all ? found(null, [{ address: "127.0.0.1", family: 4 }]) : found(null, "127.0.0.1", 4);
const byName = new S3Client({
  endpoint: endpoint.replace("127.0.0.1", domain),
  requestHandler: { httpAgent: new http.Agent({ lookup: here }) },
  maxAttempts: 1,
});

withBucket("buckets are host names", async (Bucket) => {
  await byName.send(new PutObjectCommand({ Bucket, Key: "a//b", Body: "named" }));
  assert.equal(await (await byName.send(new GetObjectCommand({ Bucket, Key: "a//b" }))).Body.transformToString(), "named");
  assert.equal((await get(Bucket, "a//b")).toString(), "named");
}, byName);

test("errors have code, status and request id", async () => {
  const wrong = new S3Client({
    forcePathStyle: true,
    maxAttempts: 1,
    credentials: { accessKeyId: process.env.AWS_ACCESS_KEY_ID, secretAccessKey: "x".repeat(40) },
  });
  const error = await wrong.send(new ListBucketsCommand({})).then(assert.fail, (raised) => raised);
  assert.deepEqual([error.name, error.$metadata.httpStatusCode], ["SignatureDoesNotMatch", 403]);
  assert.ok(error.$metadata.requestId);
  await refused(
    s3.send(new GetObjectCommand({ Bucket: "no-such-bucket-here", Key: "k" })), S3ServiceException, "NoSuchBucket", 404);
});
