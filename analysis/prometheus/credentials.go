// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/config"
	"golang.org/x/net/http/httpguts"
)

// Keys of a Secret that says how to reach a Prometheus. Those of the kinds kubernetes.io/basic-auth and
// kubernetes.io/tls are among them, and others are left alone.
const (
	keyUsername    = "username"
	keyPassword    = "password"
	keyToken       = "token"
	keyCA          = "ca.crt"
	keyCertificate = "tls.crt"
	keyPrivate     = "tls.key"
	keyServerName  = "serverName"
	// keyHeader with a header's name after it is that header's value.
	keyHeader = "header."
)

// parseSecret reads the data of a Secret. The errors are for users, and never have a value in them.
func parseSecret(data map[string][]byte) (config.HTTPClientConfig, error) {
	s := secret(data)
	c := config.HTTPClientConfig{FollowRedirects: false, ProxyConfig: config.ProxyConfig{ProxyFromEnvironment: true}}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(data)), known) {
		return c, fmt.Errorf("it has none of the keys %s, %s, %s, %s, %s, %s and %s…", keyUsername, keyToken, keyCA, keyCertificate, keyPrivate, keyServerName, keyHeader)
	}
	for _, read := range []func(*config.HTTPClientConfig) error{s.identity, s.trust, s.headers} {
		if err := read(&c); err != nil {
			return c, err
		}
	}
	return c, nil
}

func known(key string) bool {
	return slices.Contains([]string{keyUsername, keyPassword, keyToken, keyCA, keyCertificate, keyPrivate, keyServerName}, key) || strings.HasPrefix(key, keyHeader)
}

// secret is the data of a Secret.
type secret map[string][]byte

// line is a value that is one line; files that were made with an editor end with another.
func (s secret) line(key string) string { return strings.TrimRight(string(s[key]), "\r\n") }

// identity is who asks: by name and password, or by a token.
func (s secret) identity(c *config.HTTPClientConfig) error {
	name, password, token := s.line(keyUsername), s.line(keyPassword), s.line(keyToken)
	switch {
	case name != "" && token != "":
		return fmt.Errorf("it has both %s and %s", keyUsername, keyToken)
	case (name == "") != (password == ""):
		return fmt.Errorf("%s and %s belong together", keyUsername, keyPassword)
	case name != "":
		c.BasicAuth = &config.BasicAuth{Username: name, Password: config.Secret(password)}
	case !httpguts.ValidHeaderFieldValue(token):
		return fmt.Errorf("%s is more than one line", keyToken)
	case token != "":
		c.Authorization = &config.Authorization{Type: "Bearer", Credentials: config.Secret(token)}
	}
	return nil
}

// trust is whom to believe, and the certificate by which he believes us.
func (s secret) trust(c *config.HTTPClientConfig) error {
	c.TLSConfig = config.TLSConfig{MinVersion: config.TLSVersion(tls.VersionTLS12), ServerName: s.line(keyServerName)}
	if ca := s[keyCA]; len(ca) > 0 {
		if !x509.NewCertPool().AppendCertsFromPEM(ca) {
			return fmt.Errorf("%s has no certificate in PEM", keyCA)
		}
		c.TLSConfig.CA = string(ca)
	}
	certificate, private := s[keyCertificate], s[keyPrivate]
	if (len(certificate) == 0) != (len(private) == 0) {
		return fmt.Errorf("%s and %s belong together", keyCertificate, keyPrivate)
	}
	if len(certificate) == 0 {
		return nil
	}
	if _, err := tls.X509KeyPair(certificate, private); err != nil {
		return fmt.Errorf("%s and %s can't be used: %w", keyCertificate, keyPrivate, err)
	}
	c.TLSConfig.Cert, c.TLSConfig.Key = string(certificate), config.Secret(private)
	return nil
}

// headers are sent with every query, as X-Scope-OrgID, the tenant of Mimir and Thanos.
func (s secret) headers(c *config.HTTPClientConfig) error {
	headers := map[string]config.Header{}
	for key := range s {
		name, is := strings.CutPrefix(key, keyHeader)
		if !is {
			continue
		}
		value := s.line(key)
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("%s is no header", key)
		}
		headers[name] = config.Header{Secrets: []config.Secret{config.Secret(value)}}
	}
	if len(headers) == 0 {
		return nil
	}
	c.HTTPHeaders = &config.Headers{Headers: headers}
	if err := c.HTTPHeaders.Validate(); err != nil {
		return fmt.Errorf("%s…: %w", keyHeader, err)
	}
	return nil
}

const (
	// secretAge is how long a Secret is used before it is read again: a new password is in use so soon.
	secretAge = 30 * time.Second
	// refusedAge is the same after it was refused.
	refusedAge = 5 * time.Second
)

// ErrNoSecret says of a Secret that it can't be had, for a reason that does not go by itself. Other errors of reading one
// are the API server's, which may be itself again in a moment.
var ErrNoSecret = errors.New("no credentials")

// ReadSecret has the data of a Secret.
type ReadSecret func(ctx context.Context) (map[string][]byte, error)

// Authenticated is a transport that does what a Secret says: see the keys in docs/analysis.md. It reads it when it is
// first used, and now and then after that. Close its idle connections when it is of no use any more.
func Authenticated(read ReadSecret) *SecretTransport {
	return &SecretTransport{read: read, now: time.Now}
}

// SecretTransport is made by Authenticated. Several goroutines may use it at once.
type SecretTransport struct {
	read ReadSecret
	now  func() time.Time

	mu      sync.Mutex
	data    map[string][]byte
	next    http.RoundTripper // by data; nil: it could not be used
	wrong   error             // why
	at      time.Time         // of the last reading
	refused bool              // the last answer was that it is not good
}

// RoundTrip implements http.RoundTripper.
func (t *SecretTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next, err := t.current(r.Context())
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, accessError{err.Error()}
	}
	resp, err := next.RoundTrip(r)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = err != nil || isRefusal(resp.StatusCode)
	return resp, err
}

// CloseIdleConnections is what an http.Client looks for.
func (t *SecretTransport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close()
}

func (t *SecretTransport) close() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// current is the transport by what the Secret says now.
func (t *SecretTransport) current(ctx context.Context) (http.RoundTripper, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	age := secretAge
	if t.refused || t.wrong != nil {
		age = refusedAge
	}
	if !t.at.IsZero() && t.now().Sub(t.at) < age {
		return t.next, t.wrong
	}
	data, err := t.read(ctx)
	switch {
	case err != nil && !errors.Is(err, ErrNoSecret) && t.next != nil:
		t.at = t.now().Add(refusedAge - secretAge)
		return t.next, nil // the API server's trouble is not Prometheus'
	case err != nil:
		t.close()
		t.data, t.next, t.wrong = nil, nil, err
	case t.next == nil || !maps.EqualFunc(data, t.data, bytes.Equal):
		t.close()
		t.data = maps.Clone(data)
		t.next, t.wrong = newTransport(data)
	}
	t.at = t.now()
	return t.next, t.wrong
}

// idleTimeout is how long a connection is kept that nobody uses.
const idleTimeout = 90 * time.Second

func newTransport(data map[string][]byte) (http.RoundTripper, error) {
	c, err := parseSecret(data)
	if err != nil {
		return nil, fmt.Errorf("its Secret can't be used: %w", err)
	}
	out, err := config.NewRoundTripperFromConfig(c, "prometheus", config.WithIdleConnTimeout(idleTimeout))
	if err != nil {
		return nil, fmt.Errorf("its Secret can't be used: %w", err)
	}
	return out, nil
}
