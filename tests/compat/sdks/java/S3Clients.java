// AWS SDK for Java v2, with its defaults (checksums in trailers), against $AWS_ENDPOINT_URL.
// One check per habit of the SDK; each has a bucket of its own, emptied and removed with the SDK.

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.ResponseBytes;
import software.amazon.awssdk.core.async.AsyncRequestBody;
import software.amazon.awssdk.core.async.BlockingInputStreamAsyncRequestBody;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.core.async.AsyncResponseTransformer;
import software.amazon.awssdk.http.ContentStreamProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3AsyncClient;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3Configuration;
import software.amazon.awssdk.services.s3.model.*;
import software.amazon.awssdk.services.s3.presigner.S3Presigner;
import software.amazon.awssdk.transfer.s3.S3TransferManager;

public class S3Clients {
  static final int MIB = 1 << 20;
  static final URI ENDPOINT = URI.create(System.getenv("AWS_ENDPOINT_URL"));
  static final StaticCredentialsProvider KEYS = StaticCredentialsProvider.create(
      AwsBasicCredentials.create(System.getenv("AWS_ACCESS_KEY_ID"), System.getenv("AWS_SECRET_ACCESS_KEY")));
  static final Random DICE = new Random(7);

  interface Check {
    void run(S3Client s3, String bucket) throws Exception;
  }

  static S3Client client(URI endpoint, boolean byPath, StaticCredentialsProvider keys) {
    return S3Client.builder().endpointOverride(endpoint).forcePathStyle(byPath).region(Region.US_EAST_1)
        .credentialsProvider(keys).overrideConfiguration(change -> change.retryStrategy(retry -> retry.maxAttempts(1)))
        .build();
  }

  static S3AsyncClient multipartClient() {
    return S3AsyncClient.builder().endpointOverride(ENDPOINT).forcePathStyle(true).region(Region.US_EAST_1)
        .credentialsProvider(KEYS).multipartEnabled(true)
        .multipartConfiguration(change -> change.minimumPartSizeInBytes(5L * MIB).thresholdInBytes(5L * MIB)).build();
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, Check> checks = new LinkedHashMap<>();
    checks.put("buckets", S3Clients::buckets);
    checks.put("objects with every checksum", S3Clients::objects);
    checks.put("streams of unknown length in parts", S3Clients::parts);
    checks.put("presigned URLs", S3Clients::presigned);
    checks.put("listings", S3Clients::listings);
    checks.put("versions", S3Clients::versions);
    checks.put("conditions", S3Clients::conditions);
    checks.put("copies, ranges, tags", S3Clients::copies);
    checks.put("host names", S3Clients::hostNames);
    checks.put("errors", S3Clients::errors);
    S3Client s3 = client(ENDPOINT, true, KEYS);
    for (Map.Entry<String, Check> entry : checks.entrySet()) {
      String bucket = "java-" + Long.toHexString(new Random().nextLong() | 1L << 62);
      s3.createBucket(request -> request.bucket(bucket));
      try {
        entry.getValue().run(s3, bucket);
      } finally {
        empty(s3, bucket);
        s3.deleteBucket(request -> request.bucket(bucket));
      }
      System.out.println("ok " + entry.getKey());
    }
    System.exit(0);
  }

  static void empty(S3Client s3, String bucket) {
    ListObjectVersionsResponse listed = s3.listObjectVersions(request -> request.bucket(bucket));
    List<ObjectIdentifier> all = Stream.concat(
        listed.versions().stream().map(one -> id(one.key(), one.versionId())),
        listed.deleteMarkers().stream().map(one -> id(one.key(), one.versionId()))).toList();
    if (!all.isEmpty()) {
      DeleteObjectsResponse removed = s3.deleteObjects(request -> request.bucket(bucket).delete(what -> what.objects(all)));
      require(removed.errors().isEmpty() && removed.deleted().size() == all.size(), "everything is removed");
    }
  }

  static ObjectIdentifier id(String key, String version) {
    return ObjectIdentifier.builder().key(key).versionId(version).build();
  }

  static byte[] random(int size) {
    byte[] content = new byte[size];
    DICE.nextBytes(content);
    return content;
  }

  static void require(boolean holds, String what) {
    if (!holds) throw new AssertionError(what);
  }

  static void refused(String code, int status, Runnable call) {
    try {
      call.run();
    } catch (S3Exception error) {
      require(status == error.statusCode(), "status " + error.statusCode() + ", expected " + status);
      require(code.equals(error.awsErrorDetails().errorCode()), error.awsErrorDetails().errorCode() + ", expected " + code);
      require(status == 304 || error.requestId() != null, "a request id");
      return;
    }
    throw new AssertionError("not refused: " + code);
  }

  static byte[] get(S3Client s3, String bucket, String key) {
    return s3.getObjectAsBytes(request -> request.bucket(bucket).key(key)).asByteArray();
  }

  static void same(byte[] found, byte[] expected) {
    require(Arrays.equals(found, expected), "other content: " + found.length + " bytes, expected " + expected.length);
  }

  static PutObjectResponse put(S3Client s3, String bucket, String key, String content) {
    return s3.putObject(request -> request.bucket(bucket).key(key), RequestBody.fromString(content));
  }

  static void buckets(S3Client s3, String bucket) {
    s3.waiter().waitUntilBucketExists(request -> request.bucket(bucket));
    require("us-east-1".equals(s3.headBucket(request -> request.bucket(bucket)).bucketRegion()), "the region");
    require(s3.listBuckets(request -> request.prefix(bucket)).buckets().size() == 1, "the bucket is listed");
    try {
      s3.listObjectsV2(request -> request.bucket(bucket + "-not"));
      throw new AssertionError("a bucket that is not there");
    } catch (NoSuchBucketException expected) {
      require(expected.statusCode() == 404, "404");
    }
  }

  static void objects(S3Client s3, String bucket) {
    ChecksumAlgorithm[] sums = {null, ChecksumAlgorithm.CRC32_C, ChecksumAlgorithm.SHA1, ChecksumAlgorithm.SHA256};
    for (int size : new int[] {0, 1, 70_000, 2 * MIB + 1}) {
      for (ChecksumAlgorithm sum : sums) {
        byte[] content = random(size);
        String key = "a b+/ü/" + size + "-" + sum;
        PutObjectResponse reply = s3.putObject(
            request -> request.bucket(bucket).key(key).checksumAlgorithm(sum).metadata(Map.of("who", "me")),
            RequestBody.fromBytes(content));
        require(sum != ChecksumAlgorithm.SHA256 || reply.checksumSHA256() != null, "a checksum in the answer");
        require(sum != null || reply.checksumCRC32() != null, "a checksum in the answer");
        same(get(s3, bucket, key), content);
        HeadObjectResponse head = s3.headObject(
            request -> request.bucket(bucket).key(key).checksumMode(ChecksumMode.ENABLED));
        require(head.contentLength() == size && "me".equals(head.metadata().get("who")), "the head");
        require(sum != null || reply.checksumCRC32().equals(head.checksumCRC32()), "the checksum");
      }
    }
  }

  static void parts(S3Client s3, String bucket) throws Exception {
    try (S3AsyncClient sdk = multipartClient(); S3TransferManager manager = S3TransferManager.builder().s3Client(sdk).build()) {
      for (int size : new int[] {0, 3, 5 * MIB, 12 * MIB + 1}) {
        byte[] content = random(size);
        BlockingInputStreamAsyncRequestBody body = AsyncRequestBody.forBlockingInputStream(null);
        var upload = manager.upload(change -> change.putObjectRequest(request -> request.bucket(bucket).key("k-" + size)).requestBody(body));
        body.writeInputStream(new ByteArrayInputStream(content));
        upload.completionFuture().get();
        same(get(s3, bucket, "k-" + size), content);
        ResponseBytes<GetObjectResponse> read = sdk.getObject(
            request -> request.bucket(bucket).key("k-" + size), AsyncResponseTransformer.toBytes()).get();
        same(read.asByteArray(), content);
      }
      byte[] content = random(200_000);
      ContentStreamProvider provider = () -> new ByteArrayInputStream(content);
      s3.putObject(request -> request.bucket(bucket).key("stream"), RequestBody.fromContentProvider(provider, "a/b"));
      same(get(s3, bucket, "stream"), content);
    }
  }

  static HttpURLConnection open(URL url, String method, Map<String, List<String>> headers, byte[] body) throws Exception {
    HttpURLConnection connection = (HttpURLConnection) url.openConnection();
    connection.setRequestMethod(method);
    headers.forEach((name, values) -> {
      if (!name.equalsIgnoreCase("host")) connection.setRequestProperty(name, values.get(0));
    });
    if (body != null) {
      connection.setDoOutput(true);
      connection.getOutputStream().write(body);
    }
    connection.getResponseCode();
    return connection;
  }

  static void presigned(S3Client s3, String bucket) throws Exception {
    byte[] content = random(1000);
    try (S3Presigner signer = S3Presigner.builder().endpointOverride(ENDPOINT).region(Region.US_EAST_1).credentialsProvider(KEYS)
        .serviceConfiguration(S3Configuration.builder().pathStyleAccessEnabled(true).build()).build()) {
      var put = signer.presignPutObject(change -> change.signatureDuration(Duration.ofMinutes(1))
          .putObjectRequest(request -> request.bucket(bucket).key("a b/ü").contentType("text/plain")));
      require(open(put.url(), "PUT", put.signedHeaders(), content).getResponseCode() == 200, "a presigned PUT");
      require(open(put.url(), "PUT", Map.of("Content-Type", List.of("text/html")), content).getResponseCode() == 403, "another type");
      var get = signer.presignGetObject(change -> change.signatureDuration(Duration.ofMinutes(1))
          .getObjectRequest(request -> request.bucket(bucket).key("a b/ü").responseContentType("x/y")));
      HttpURLConnection reply = open(get.url(), "GET", get.signedHeaders(), null);
      require("x/y".equals(reply.getContentType()), "another content type");
      try (InputStream body = reply.getInputStream()) {
        same(body.readAllBytes(), content);
      }
    }
  }

  static void listings(S3Client s3, String bucket) {
    for (int number = 0; number < 7; number++) put(s3, bucket, "dir " + number % 3 + "/ü&" + number, "x");
    List<String> keys = s3.listObjectsV2Paginator(request -> request.bucket(bucket).maxKeys(2)).contents().stream()
        .map(S3Object::key).toList();
    require(keys.size() == 7 && keys.equals(keys.stream().sorted().toList()), "all keys: " + keys);
    List<String> prefixes = s3.listObjectsV2Paginator(request -> request.bucket(bucket).maxKeys(1).delimiter("/"))
        .commonPrefixes().stream().map(CommonPrefix::prefix).toList();
    require(prefixes.equals(List.of("dir 0/", "dir 1/", "dir 2/")), "prefixes: " + prefixes);
  }

  static void versions(S3Client s3, String bucket) {
    s3.putBucketVersioning(request -> request.bucket(bucket)
        .versioningConfiguration(change -> change.status(BucketVersioningStatus.ENABLED)));
    String first = put(s3, bucket, "k", "1").versionId();
    put(s3, bucket, "k", "2");
    require(s3.deleteObject(request -> request.bucket(bucket).key("k")).deleteMarker(), "a marker");
    refused("NoSuchKey", 404, () -> get(s3, bucket, "k"));
    same(s3.getObjectAsBytes(request -> request.bucket(bucket).key("k").versionId(first)).asByteArray(), "1".getBytes());
  }

  static void conditions(S3Client s3, String bucket) {
    String tag = put(s3, bucket, "lock", "1").eTag();
    refused("PreconditionFailed", 412, () -> s3.putObject(
        request -> request.bucket(bucket).key("lock").ifNoneMatch("*"), RequestBody.fromString("2")));
    s3.putObject(request -> request.bucket(bucket).key("lock").ifMatch(tag), RequestBody.fromString("3"));
    refused("PreconditionFailed", 412, () -> s3.getObjectAsBytes(
        request -> request.bucket(bucket).key("lock").ifMatch(tag)));
  }

  static void copies(S3Client s3, String bucket) {
    byte[] content = random(70_000);
    s3.putObject(request -> request.bucket(bucket).key("from/ü +").tagging("a=1&b=c%20d"), RequestBody.fromBytes(content));
    s3.copyObject(request -> request.sourceBucket(bucket).sourceKey("from/ü +").destinationBucket(bucket).destinationKey("to"));
    byte[] range = s3.getObjectAsBytes(request -> request.bucket(bucket).key("to").range("bytes=10-19")).asByteArray();
    same(range, Arrays.copyOfRange(content, 10, 20));
    List<Tag> tags = s3.getObjectTagging(request -> request.bucket(bucket).key("to")).tagSet();
    require(tags.size() == 2 && tags.get(1).value().equals("c d"), "tags: " + tags);
    refused("InvalidRange", 416, () -> s3.getObjectAsBytes(request -> request.bucket(bucket).key("to").range("bytes=70000-")));
  }

  // Started with jdk.net.hosts.file, in which the name of the bucket below the domain is this machine.
  static void hostNames(S3Client s3, String bucket) {
    String named = System.getenv("S3_BUCKET_NAME");
    URI domain = URI.create(ENDPOINT.toString().replace("127.0.0.1", System.getenv("S3_DOMAIN")));
    try (S3Client byName = client(domain, false, KEYS)) {
      byName.createBucket(request -> request.bucket(named));
      put(byName, named, "a//b", "named");
      same(get(s3, named, "a//b"), "named".getBytes());
      byName.deleteObject(request -> request.bucket(named).key("a//b"));
      byName.deleteBucket(request -> request.bucket(named));
    }
  }

  static void errors(S3Client s3, String bucket) {
    StaticCredentialsProvider wrong = StaticCredentialsProvider.create(
        AwsBasicCredentials.create(System.getenv("AWS_ACCESS_KEY_ID"), "x".repeat(40)));
    try (S3Client stranger = client(ENDPOINT, true, wrong)) {
      refused("SignatureDoesNotMatch", 403, stranger::listBuckets);
    }
  }
}
