// AWS SDK for Go v2, with its defaults (checksums in trailers), against $AWS_ENDPOINT_URL.
// One test per habit of the SDK; each has a bucket of its own, emptied and removed with the SDK.
package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tm "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

const mib = 1 << 20

var ctx = context.Background()

func client(changes ...func(*s3.Options)) *s3.Client {
	return s3.New(s3.Options{
		Region:           "us-east-1",
		BaseEndpoint:     aws.String(os.Getenv("AWS_ENDPOINT_URL")),
		UsePathStyle:     true,
		RetryMaxAttempts: 1,
		// What a configuration that was loaded has.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
		Credentials: credentials.NewStaticCredentialsProvider(
			os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	}, changes...)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, found, expected T) {
	t.Helper()
	if found != expected {
		t.Fatalf("found %v, expected %v", found, expected)
	}
}

func random(size int) []byte {
	content := make([]byte, size)
	rand.Read(content)
	return content
}

func newBucket(t *testing.T, sdk *s3.Client) *string {
	t.Helper()
	name := aws.String("go-" + hex.EncodeToString(random(6)))
	_, err := sdk.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: name})
	check(t, err)
	t.Cleanup(func() { removeBucket(t, sdk, name) })
	return name
}

func removeBucket(t *testing.T, sdk *s3.Client, name *string) {
	listed, err := sdk.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: name})
	check(t, err)
	var all []types.ObjectIdentifier
	for _, version := range listed.Versions {
		all = append(all, types.ObjectIdentifier{Key: version.Key, VersionId: version.VersionId})
	}
	for _, marker := range listed.DeleteMarkers {
		all = append(all, types.ObjectIdentifier{Key: marker.Key, VersionId: marker.VersionId})
	}
	if len(all) > 0 {
		removed, err := sdk.DeleteObjects(ctx, &s3.DeleteObjectsInput{
			Bucket: name, Delete: &types.Delete{Objects: all}})
		check(t, err)
		equal(t, len(removed.Errors), 0)
		equal(t, len(removed.Deleted), len(all))
	}
	_, err = sdk.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: name})
	check(t, err)
}

func put(t *testing.T, sdk *s3.Client, bucket *string, key string, content []byte) *s3.PutObjectOutput {
	t.Helper()
	reply, err := sdk.PutObject(ctx, &s3.PutObjectInput{
		Bucket: bucket, Key: &key, Body: bytes.NewReader(content)})
	check(t, err)
	return reply
}

func get(t *testing.T, sdk *s3.Client, input *s3.GetObjectInput) []byte {
	t.Helper()
	reply, err := sdk.GetObject(ctx, input)
	check(t, err)
	defer reply.Body.Close()
	content, err := io.ReadAll(reply.Body)
	check(t, err)
	return content
}

func same(t *testing.T, found, expected []byte) {
	t.Helper()
	if !bytes.Equal(found, expected) {
		t.Fatalf("other content: %d bytes, expected %d", len(found), len(expected))
	}
}

func refused(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) {
		t.Fatalf("no error of the service: %v", err)
	}
	equal(t, api.ErrorCode(), code)
}

func TestBucketsAreMadeFoundListedAndRefused(t *testing.T) {
	sdk := client()
	bucket := newBucket(t, sdk)
	check(t, s3.NewBucketExistsWaiter(sdk).Wait(ctx, &s3.HeadBucketInput{Bucket: bucket}, 10*time.Second))
	listed, err := sdk.ListBuckets(ctx, &s3.ListBucketsInput{Prefix: bucket})
	check(t, err)
	equal(t, len(listed.Buckets), 1)
	equal(t, *listed.Buckets[0].Name, *bucket)
	_, err = sdk.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(*bucket + "-not")})
	refused(t, err, "NotFound")
	var missing *types.NoSuchBucket
	_, err = sdk.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(*bucket + "-not")})
	if !errors.As(err, &missing) {
		t.Fatalf("not NoSuchBucket: %v", err)
	}
}

func TestObjectsComeBackWithEveryChecksum(t *testing.T) {
	sdk := client()
	bucket := newBucket(t, sdk)
	for _, size := range []int{0, 1, 70_000, 2*mib + 1} {
		for _, algorithm := range append([]types.ChecksumAlgorithm{""}, "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256") {
			content, key := random(size), fmt.Sprintf("a b+/ü/%d-%s", size, algorithm)
			reply, err := sdk.PutObject(ctx, &s3.PutObjectInput{
				Bucket: bucket, Key: &key, Body: bytes.NewReader(content), ChecksumAlgorithm: algorithm,
				Metadata: map[string]string{"who": "me"}, ContentType: aws.String("a/b")})
			check(t, err)
			if algorithm == "" && reply.ChecksumCRC32 == nil || algorithm == "SHA256" && reply.ChecksumSHA256 == nil {
				t.Fatal("no checksum in the answer")
			}
			same(t, get(t, sdk, &s3.GetObjectInput{Bucket: bucket, Key: &key}), content)
			head, err := sdk.HeadObject(ctx, &s3.HeadObjectInput{
				Bucket: bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
			check(t, err)
			equal(t, *head.ContentLength, int64(size))
			equal(t, head.Metadata["who"], "me")
			equal(t, aws.ToString(head.ChecksumSHA256), aws.ToString(reply.ChecksumSHA256))
			equal(t, aws.ToString(head.ChecksumCRC32), aws.ToString(reply.ChecksumCRC32))
		}
	}
}

// A reader without Seek: the SDK cannot know the length beforehand and sends it in parts.
type unseekable struct{ io.Reader }

func TestTheTransferManagerSendsStreamsInPartsAndReadsThem(t *testing.T) {
	sdk := client()
	bucket := newBucket(t, sdk)
	manager := transfermanager.New(sdk, func(options *transfermanager.Options) {
		options.PartSizeBytes = 5 * mib
		options.MultipartUploadThreshold = 5 * mib
	})
	for _, algorithm := range []tm.ChecksumAlgorithm{"", tm.ChecksumAlgorithmSha256} {
		for _, size := range []int{0, 3, 5 * mib, 12*mib + 1} {
			content, key := random(size), fmt.Sprintf("k-%d%s", size, algorithm)
			_, err := manager.UploadObject(ctx, &transfermanager.UploadObjectInput{
				Bucket: bucket, Key: &key, Body: unseekable{bytes.NewReader(content)}, ChecksumAlgorithm: algorithm})
			check(t, err)
			same(t, get(t, sdk, &s3.GetObjectInput{Bucket: bucket, Key: &key}), content)
			loaded, err := manager.GetObject(ctx, &transfermanager.GetObjectInput{Bucket: bucket, Key: &key})
			check(t, err)
			read, err := io.ReadAll(loaded.Body)
			check(t, err)
			same(t, read, content)
		}
	}
}

func TestPresignedRequests(t *testing.T) {
	sdk := client()
	bucket, content := newBucket(t, sdk), random(1000)
	key := aws.String("a b/ü")
	signer := s3.NewPresignClient(sdk)
	putting, err := signer.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key})
	check(t, err)
	equal(t, send(t, "PUT", putting.URL, putting.SignedHeader, content).StatusCode, 200)
	getting, err := signer.PresignGetObject(ctx, &s3.GetObjectInput{
		Bucket: bucket, Key: key, ResponseContentType: aws.String("x/y")})
	check(t, err)
	reply := send(t, "GET", getting.URL, getting.SignedHeader, nil)
	equal(t, reply.Header.Get("Content-Type"), "x/y")
	read, err := io.ReadAll(reply.Body)
	check(t, err)
	same(t, read, content)
	equal(t, send(t, "DELETE", getting.URL, getting.SignedHeader, nil).StatusCode, 403)
	heading, err := signer.PresignHeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key})
	check(t, err)
	equal(t, send(t, "HEAD", heading.URL, heading.SignedHeader, nil).ContentLength, 1000)
	posting, err := signer.PresignPostObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("in")})
	check(t, err)
	equal(t, postForm(t, posting.URL, posting.Values, content), 204)
	same(t, get(t, sdk, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("in")}), content)
}

func TestListingsArePaginated(t *testing.T) {
	sdk := client()
	bucket := newBucket(t, sdk)
	var keys, found, prefixes []string
	for number := range 7 {
		keys = append(keys, fmt.Sprintf("dir %d/ü&%d", number%3, number))
		put(t, sdk, bucket, keys[number], []byte("x"))
	}
	slices.Sort(keys)
	pages := s3.NewListObjectsV2Paginator(sdk, &s3.ListObjectsV2Input{Bucket: bucket, MaxKeys: aws.Int32(2)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		check(t, err)
		for _, object := range page.Contents {
			found = append(found, *object.Key)
		}
	}
	equal(t, strings.Join(found, "|"), strings.Join(keys, "|"))
	pages = s3.NewListObjectsV2Paginator(sdk, &s3.ListObjectsV2Input{
		Bucket: bucket, MaxKeys: aws.Int32(1), Delimiter: aws.String("/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		check(t, err)
		for _, prefix := range page.CommonPrefixes {
			prefixes = append(prefixes, *prefix.Prefix)
		}
	}
	equal(t, strings.Join(prefixes, "|"), "dir 0/|dir 1/|dir 2/")
}

func TestVersionsAreKeptReadAndRemoved(t *testing.T) {
	sdk := client()
	bucket, key := newBucket(t, sdk), aws.String("k")
	_, err := sdk.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	check(t, err)
	first := put(t, sdk, bucket, "k", []byte("1"))
	put(t, sdk, bucket, "k", []byte("2"))
	gone, err := sdk.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key})
	check(t, err)
	equal(t, *gone.DeleteMarker, true)
	_, err = sdk.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key})
	refused(t, err, "NoSuchKey")
	same(t, get(t, sdk, &s3.GetObjectInput{Bucket: bucket, Key: key, VersionId: first.VersionId}), []byte("1"))
	_, err = sdk.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key, VersionId: gone.VersionId})
	check(t, err)
	same(t, get(t, sdk, &s3.GetObjectInput{Bucket: bucket, Key: key}), []byte("2"))
}

func TestConditionalWritesHaveOneWinner(t *testing.T) {
	sdk := client()
	bucket, key := newBucket(t, sdk), aws.String("lock")
	lock := func(content string) (*s3.PutObjectOutput, error) {
		return sdk.PutObject(ctx, &s3.PutObjectInput{
			Bucket: bucket, Key: key, Body: strings.NewReader(content), IfNoneMatch: aws.String("*")})
	}
	var won []string
	var together sync.WaitGroup
	var guard sync.Mutex
	for number := range 8 {
		together.Go(func() {
			if reply, err := lock(fmt.Sprint(number)); err == nil {
				guard.Lock()
				defer guard.Unlock()
				won = append(won, *reply.ETag)
			}
		})
	}
	together.Wait()
	equal(t, len(won), 1)
	_, err := lock("x")
	refused(t, err, "PreconditionFailed")
	_, err = sdk.PutObject(ctx, &s3.PutObjectInput{
		Bucket: bucket, Key: key, Body: strings.NewReader("y"), IfMatch: &won[0]})
	check(t, err)
	_, err = sdk.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, IfMatch: &won[0]})
	refused(t, err, "PreconditionFailed")
}

func TestCopiesRangesAndTags(t *testing.T) {
	sdk := client()
	bucket, content := newBucket(t, sdk), random(70_000)
	_, err := sdk.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("from"),
		Body: bytes.NewReader(content), Tagging: aws.String("a=1&b=c%20d")})
	check(t, err)
	to := aws.String("to/ü")
	_, err = sdk.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: to, CopySource: aws.String(*bucket + "/from")})
	check(t, err)
	same(t, get(t, sdk, &s3.GetObjectInput{Bucket: bucket, Key: to, Range: aws.String("bytes=10-19")}), content[10:20])
	tags, err := sdk.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: bucket, Key: to})
	check(t, err)
	equal(t, len(tags.TagSet), 2)
	equal(t, *tags.TagSet[1].Value, "c d")
	_, err = sdk.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: bucket, Key: to,
		Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("x"), Value: aws.String("/@")}}}})
	check(t, err)
	_, err = sdk.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: to, Range: aws.String("bytes=70000-")})
	refused(t, err, "InvalidRange")
	attributes, err := sdk.GetObjectAttributes(ctx, &s3.GetObjectAttributesInput{Bucket: bucket, Key: to,
		ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesObjectSize, types.ObjectAttributesEtag}})
	check(t, err)
	equal(t, *attributes.ObjectSize, 70_000)
}

func TestBucketsAreHostNames(t *testing.T) {
	endpoint := os.Getenv("AWS_ENDPOINT_URL")
	here := strings.TrimPrefix(endpoint, "http://")
	// No name server knows the names: all of them are this store.
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, here)
	}
	sdk := client(func(options *s3.Options) {
		options.UsePathStyle = false
		options.BaseEndpoint = aws.String(strings.Replace(endpoint, "127.0.0.1", os.Getenv("S3_DOMAIN"), 1))
		options.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: dial}}
	})
	bucket := newBucket(t, sdk)
	put(t, sdk, bucket, "a//b", []byte("named"))
	same(t, get(t, client(), &s3.GetObjectInput{Bucket: bucket, Key: aws.String("a//b")}), []byte("named"))
}

func TestErrorsHaveCodeStatusAndRequestId(t *testing.T) {
	sdk := client(func(options *s3.Options) {
		options.Credentials = credentials.NewStaticCredentialsProvider(
			os.Getenv("AWS_ACCESS_KEY_ID"), strings.Repeat("x", 40), "")
	})
	_, err := sdk.ListBuckets(ctx, &s3.ListBucketsInput{})
	refused(t, err, "SignatureDoesNotMatch")
	var response interface {
		HTTPStatusCode() int
		ServiceRequestID() string
	}
	if !errors.As(err, &response) {
		t.Fatal(err)
	}
	equal(t, response.HTTPStatusCode(), 403)
	if response.ServiceRequestID() == "" {
		t.Fatal("no request id")
	}
}
