// minio-go: its own signer (streaming signatures over plain http), its own XML, its own multipart.
package clients

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/tags"
)

func minioClient(t *testing.T, trailing bool) *minio.Client {
	t.Helper()
	found, err := minio.New(strings.TrimPrefix(os.Getenv("AWS_ENDPOINT_URL"), "http://"), &minio.Options{
		Creds:           credentials.NewStaticV4(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
		TrailingHeaders: trailing})
	check(t, err)
	return found
}

func minioBucket(t *testing.T, sdk *minio.Client) string {
	t.Helper()
	name := "minio-" + hex.EncodeToString(random(6))
	check(t, sdk.MakeBucket(ctx, name, minio.MakeBucketOptions{}))
	t.Cleanup(func() {
		all := sdk.ListObjects(ctx, name, minio.ListObjectsOptions{Recursive: true, WithVersions: true})
		for failure := range sdk.RemoveObjects(ctx, name, all, minio.RemoveObjectsOptions{}) {
			t.Error(failure)
		}
		check(t, sdk.RemoveBucket(ctx, name))
	})
	return name
}

func minioRead(t *testing.T, sdk *minio.Client, bucket, key string, options minio.GetObjectOptions) []byte {
	t.Helper()
	object, err := sdk.GetObject(ctx, bucket, key, options)
	check(t, err)
	defer object.Close()
	content, err := io.ReadAll(object)
	check(t, err)
	return content
}

func minioRefused(t *testing.T, err error, code string, status int) {
	t.Helper()
	reply := minio.ToErrorResponse(err)
	equal(t, reply.Code, code)
	equal(t, reply.StatusCode, status)
}

func TestMinioObjectsOfEverySizeAndChecksum(t *testing.T) {
	sdk := minioClient(t, true)
	bucket := minioBucket(t, sdk)
	sums := []minio.ChecksumType{minio.ChecksumNone, minio.ChecksumCRC32C, minio.ChecksumSHA256, minio.ChecksumCRC64NVME}
	for _, size := range []int{0, 1, 70_000, 11*mib + 1} {
		for _, sum := range sums {
			for _, known := range []int64{int64(size), -1} {
				content, key := random(size), fmt.Sprintf("a b+/ü/%d-%s-%d", size, sum, known)
				options := minio.PutObjectOptions{PartSize: 5 * mib, Checksum: sum, UserTags: map[string]string{"a": "b c"}}
				_, err := sdk.PutObject(ctx, bucket, key, bytes.NewReader(content), known, options)
				check(t, err)
				same(t, minioRead(t, sdk, bucket, key, minio.GetObjectOptions{Checksum: true}), content)
				told, err := sdk.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
				check(t, err)
				equal(t, told.Size, int64(size))
			}
		}
	}
}

func TestMinioObjectsWithoutTrailers(t *testing.T) {
	sdk := minioClient(t, false)
	bucket := minioBucket(t, sdk)
	for _, size := range []int{0, 70_000, 11*mib + 1} {
		content := random(size)
		_, err := sdk.PutObject(ctx, bucket, "k", bytes.NewReader(content), int64(size), minio.PutObjectOptions{PartSize: 5 * mib})
		check(t, err)
		same(t, minioRead(t, sdk, bucket, "k", minio.GetObjectOptions{}), content)
	}
}

func TestMinioRangesCopiesComposedObjectsAndTags(t *testing.T) {
	sdk := minioClient(t, false)
	bucket, content := minioBucket(t, sdk), random(6*mib)
	_, err := sdk.PutObject(ctx, bucket, "from", bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	check(t, err)
	part := minio.GetObjectOptions{}
	check(t, part.SetRange(100, 199))
	same(t, minioRead(t, sdk, bucket, "from", part), content[100:200])
	source := minio.CopySrcOptions{Bucket: bucket, Object: "from"}
	_, err = sdk.CopyObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "copy"}, source)
	check(t, err)
	_, err = sdk.ComposeObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "twice"}, source, source)
	check(t, err)
	same(t, minioRead(t, sdk, bucket, "twice", minio.GetObjectOptions{}), append(bytes.Clone(content), content...))
	set, err := tags.NewTags(map[string]string{"x": "y z"}, true)
	check(t, err)
	check(t, sdk.PutObjectTagging(ctx, bucket, "copy", set, minio.PutObjectTaggingOptions{}))
	found, err := sdk.GetObjectTagging(ctx, bucket, "copy", minio.GetObjectTaggingOptions{})
	check(t, err)
	equal(t, found.ToMap()["x"], "y z")
}

func TestMinioListingsAndIncompleteUploads(t *testing.T) {
	sdk := minioClient(t, false)
	bucket := minioBucket(t, sdk)
	var found []string
	for _, key := range []string{"a/1", "a/ü&", "b"} {
		_, err := sdk.PutObject(ctx, bucket, key, strings.NewReader("x"), 1, minio.PutObjectOptions{})
		check(t, err)
	}
	for object := range sdk.ListObjects(ctx, bucket, minio.ListObjectsOptions{MaxKeys: 1, Recursive: true}) {
		check(t, object.Err)
		found = append(found, object.Key)
	}
	equal(t, strings.Join(found, "|"), "a/1|a/ü&|b")
	core := minio.Core{Client: sdk}
	_, err := core.NewMultipartUpload(ctx, bucket, "begun", minio.PutObjectOptions{})
	check(t, err)
	check(t, sdk.RemoveIncompleteUpload(ctx, bucket, "begun"))
	for upload := range sdk.ListIncompleteUploads(ctx, bucket, "", true) {
		t.Fatalf("left: %v", upload)
	}
}

func TestMinioVersionsAndConditions(t *testing.T) {
	sdk := minioClient(t, false)
	bucket := minioBucket(t, sdk)
	check(t, sdk.EnableVersioning(ctx, bucket))
	first, err := sdk.PutObject(ctx, bucket, "k", strings.NewReader("1"), 1, minio.PutObjectOptions{})
	check(t, err)
	once := minio.PutObjectOptions{}
	once.SetMatchETagExcept("*")
	_, err = sdk.PutObject(ctx, bucket, "k", strings.NewReader("2"), 1, once)
	minioRefused(t, err, "PreconditionFailed", 412)
	check(t, sdk.RemoveObject(ctx, bucket, "k", minio.RemoveObjectOptions{}))
	_, err = sdk.StatObject(ctx, bucket, "k", minio.StatObjectOptions{})
	minioRefused(t, err, "NoSuchKey", 404)
	same(t, minioRead(t, sdk, bucket, "k", minio.GetObjectOptions{VersionID: first.VersionID}), []byte("1"))
}

func TestMinioPresigns(t *testing.T) {
	sdk := minioClient(t, false)
	bucket := minioBucket(t, sdk)
	putting, err := sdk.PresignedPutObject(ctx, bucket, "a b/ü", time.Minute)
	check(t, err)
	equal(t, send(t, "PUT", putting.String(), nil, []byte("hello")).StatusCode, 200)
	getting, err := sdk.PresignedGetObject(ctx, bucket, "a b/ü", time.Minute, url.Values{"response-content-type": {"x/y"}})
	check(t, err)
	equal(t, send(t, "GET", getting.String(), nil, nil).Header.Get("Content-Type"), "x/y")
	policy := minio.NewPostPolicy()
	check(t, policy.SetBucket(bucket))
	check(t, policy.SetKey("in"))
	check(t, policy.SetExpires(time.Now().Add(time.Minute)))
	check(t, policy.SetContentLengthRange(1, 10))
	form, fields, err := sdk.PresignedPostPolicy(ctx, policy)
	check(t, err)
	equal(t, postForm(t, form.String(), fields, []byte("hello")), 204)
	equal(t, postForm(t, form.String(), fields, random(11)), 400)
}
