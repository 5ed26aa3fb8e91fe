// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Headers by which the app says who answered.
const (
	VersionHeader = "X-Test-Version"
	PodHeader     = "X-Test-Pod"
)

// StreamEnd is the last line of a complete stream.
const StreamEnd = "end"

// httpSender sends one kind of HTTP request.
type httpSender struct {
	client  *http.Client
	targets *Targets
	port    int
	host    string // Host header
	path    string
	stream  bool
}

func newTransport(k Kind) *http.Transport {
	tr := &http.Transport{
		MaxIdleConnsPerHost: 1000,
		// Below any idle timeout of a server or proxy, so that a connection is rarely reused just
		// when the other side closes it.
		IdleConnTimeout:   4 * time.Second,
		DisableKeepAlives: k == KindNew,
		Protocols:         new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(k != KindH2C)
	tr.Protocols.SetUnencryptedHTTP2(k == KindH2C)
	return tr
}

func (s *httpSender) send(ctx context.Context) Outcome {
	url := "http://" + hostPort(s.targets.Next(), s.port) + s.path
	// The body makes a POST that can be sent again when HTTP/2 declares it unprocessed, and only then.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte("x")))
	if err != nil {
		return Outcome{Class: ClassTransport, Detail: err.Error()}
	}
	req.Host = s.host
	resp, err := s.client.Do(req)
	if err != nil {
		return Outcome{Class: classOfError(err), Detail: err.Error()}
	}
	defer func() { _ = resp.Body.Close() }()
	o := Outcome{Version: resp.Header.Get(VersionHeader), Pod: resp.Header.Get(PodHeader)}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		o.Class, o.Detail = classOfStatus(resp.StatusCode), string(body)
		return o
	}
	if err := s.readAnswer(resp.Body); err != nil {
		o.Class, o.Detail = bodyClass(ctx), err.Error()
		return o
	}
	if o.Version == "" {
		o.Class, o.Detail = ClassUnexpected, "an answer without "+VersionHeader
	}
	return o
}

// readAnswer reads to the end and says what is wrong with the body.
func (s *httpSender) readAnswer(body io.Reader) error {
	if s.stream {
		return readStream(body)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if !json.Valid(b) {
		return fmt.Errorf("the answer is no JSON: %.80q", b)
	}
	return nil
}

func readStream(body io.Reader) error {
	last := ""
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		last = lines.Text()
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if strings.TrimSpace(last) != StreamEnd {
		return fmt.Errorf("the stream ends with %.80q, want %q", last, StreamEnd)
	}
	return nil
}

func bodyClass(ctx context.Context) string {
	if ctx.Err() != nil {
		return ClassTimeout
	}
	return ClassTruncated
}
