package clients

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"testing"
)

// send is what whoever holds a presigned URL does.
func send(t *testing.T, method, url string, headers http.Header, body []byte) *http.Response {
	t.Helper()
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	check(t, err)
	for name, values := range headers {
		request.Header[name] = values
	}
	reply, err := http.DefaultClient.Do(request)
	check(t, err)
	t.Cleanup(func() { reply.Body.Close() })
	return reply
}

// postForm is what a browser does with the fields of a presigned form; its status.
func postForm(t *testing.T, url string, fields map[string]string, content []byte) int {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range fields {
		check(t, form.WriteField(name, value))
	}
	file, err := form.CreateFormFile("file", "f.bin")
	check(t, err)
	_, err = file.Write(content)
	check(t, err)
	check(t, form.Close())
	headers := http.Header{"Content-Type": {form.FormDataContentType()}}
	return send(t, "POST", url, headers, body.Bytes()).StatusCode
}
