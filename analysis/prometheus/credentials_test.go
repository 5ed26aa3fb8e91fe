// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// authority signs certificates of clients.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	a.certificate = a.sign(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign completes a certificate; that of an authority without one is its own.
func (a authority) sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber, template.Subject = big.NewInt(1), pkix.Name{CommonName: "headgate"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// client is a certificate and its key, in PEM.
func (a authority) client(t *testing.T) (certificate, private string) {
	t.Helper()
	key := newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	signed := a.sign(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, key)
	return inPEM("CERTIFICATE", signed.Raw), inPEM("PRIVATE KEY", der)
}

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// guarded is a Prometheus behind TLS that answers whom allow lets in.
func guarded(t *testing.T, clients *x509.CertPool, allow func(*http.Request) bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allow(r) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		vector(w, "")
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail, as they should
	if clients != nil {
		// With TLS 1.3 the handshake is over for the client before the server has seen its certificate, and the connection
		// may be gone before the client has read why.
		s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func anybody(*http.Request) bool { return true }

// data is that of a Secret, from keys and values in turn.
func data(pairs ...string) map[string][]byte {
	out := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = []byte(pairs[i+1])
	}
	return out
}

// with is a client that uses a Secret.
func with(t *testing.T, url string, secret map[string][]byte) *Client {
	t.Helper()
	transport := Authenticated(func(context.Context) (map[string][]byte, error) { return secret, nil })
	t.Cleanup(transport.CloseIdleConnections)
	// A crowded machine needs its time for TLS.
	c, err := New(Config{URL: url, Transport: transport, QueryTimeout: time.Minute, BatchTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// whatItSays is what becomes of a query and of a look: nothing is wrong, or both say the same, and the look is missing.
func whatItSays(t *testing.T, c *Client) string {
	t.Helper()
	looks, _ := c.Looks(t.Context(), start, []Target{shop()})
	err := c.Check(t.Context(), Query{Expression: "up"})
	if err == nil {
		if looks[0].Reason != "no sidecar's counters found" { // it was answered, and there are none
			t.Errorf("the look is missing, because %s", looks[0].Reason)
		}
		return ""
	}
	if !looks[0].Missing || looks[0].Reason != err.Error() || len(looks[0].Candidate) != 0 {
		t.Errorf("the query says %q, and the look %+v", err, looks[0])
	}
	return err.Error()
}

func TestCredentials(t *testing.T) {
	own := newAuthority(t)
	clients := x509.NewCertPool()
	clients.AddCert(own.certificate)
	certificate, private := own.client(t)
	strange, strangeKey := newAuthority(t).client(t)

	open := guarded(t, nil, anybody)
	basic := guarded(t, nil, func(r *http.Request) bool {
		name, password, ok := r.BasicAuth()
		return ok && name == "ann" && password == "se:cret"
	})
	bearer := guarded(t, nil, func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer t0ken" })
	tenant := guarded(t, nil, func(r *http.Request) bool {
		return r.Header.Get("X-Scope-OrgID") == "shop" && r.Header.Get("X-Other") == "a b" && r.Header.Get("Authorization") == "Bearer t0ken"
	})
	mutual := guarded(t, clients, func(r *http.Request) bool { return r.TLS.PeerCertificates[0].Subject.CommonName == "headgate" })
	ca := inPEM("CERTIFICATE", open.Certificate().Raw) // they all have the same

	for name, tc := range map[string]struct {
		server *httptest.Server
		host   string // instead of the address
		secret map[string][]byte
		wrong  string // a part of what is said; empty: it answers
	}{
		"a certificate authority":       {server: open, secret: data("ca.crt", ca)},
		"without it":                    {server: open, secret: data("token", "t"), wrong: "its certificate is not trusted: x509: certificate signed by unknown authority"},
		"another one":                   {server: open, secret: data("ca.crt", inPEM("CERTIFICATE", own.certificate.Raw)), wrong: "its certificate is not trusted"},
		"a name that is not its own":    {server: open, host: "localhost", secret: data("ca.crt", ca), wrong: "its certificate is not trusted: x509: certificate is valid for "},
		"the name that it has":          {server: open, host: "localhost", secret: data("ca.crt", ca, "serverName", "example.com\n")},
		"name and password":             {server: basic, secret: data("ca.crt", ca, "username", "ann\n", "password", "se:cret\n")},
		"a wrong password":              {server: basic, secret: data("ca.crt", ca, "username", "ann", "password", "secret"), wrong: "it refuses the credentials (401 Unauthorized)"},
		"none":                          {server: basic, secret: data("ca.crt", ca), wrong: "it refuses the credentials (401 Unauthorized)"},
		"a token":                       {server: bearer, secret: data("ca.crt", ca, "token", "t0ken\n")},
		"a wrong token":                 {server: bearer, secret: data("ca.crt", ca, "token", "token"), wrong: "it refuses the credentials"},
		"headers besides a token":       {server: tenant, secret: data("ca.crt", ca, "token", "t0ken", "header.X-Scope-OrgID", "shop\n", "header.x-other", "a b")},
		"another tenant":                {server: tenant, secret: data("ca.crt", ca, "token", "t0ken", "header.X-Scope-OrgID", "bank", "header.x-other", "a b"), wrong: "it refuses the credentials"},
		"a certificate":                 {server: mutual, secret: data("ca.crt", ca, "tls.crt", certificate, "tls.key", private)},
		"no certificate where one must": {server: mutual, secret: data("ca.crt", ca), wrong: "it refuses the connection: tls: "},
		"a stranger's":                  {server: mutual, secret: data("ca.crt", ca, "tls.crt", strange, "tls.key", strangeKey), wrong: "it refuses the connection: tls: "},
		"one with another's key":        {server: mutual, secret: data("ca.crt", ca, "tls.crt", certificate, "tls.key", strangeKey), wrong: "tls.crt and tls.key can't be used: tls: private key does not match"},
		"one without a key":             {server: mutual, secret: data("ca.crt", ca, "tls.crt", certificate), wrong: "tls.crt and tls.key belong together"},
		"a name without a password":     {server: basic, secret: data("username", "ann", "pasword", "x"), wrong: "username and password belong together"},
		"two identities":                {server: basic, secret: data("username", "ann", "password", "x", "token", "y"), wrong: "it has both username and token"},
		"a token of two lines":          {server: bearer, secret: data("token", "a\nb"), wrong: "token is more than one line"},
		"an authority that is none":     {server: open, secret: data("ca.crt", "-----BEGIN CERTIFICATE-----"), wrong: "ca.crt has no certificate in PEM"},
		"a header that is not free":     {server: open, secret: data("header.authorization", "x"), wrong: `setting header "Authorization" is not allowed`},
		"a header of two":               {server: open, secret: data("header.X-A", "a\r\nX-B: b"), wrong: "header.X-A is no header"},
		"a header without a name":       {server: open, secret: data("header.", "a"), wrong: "header. is no header"},
		"keys that mean nothing":        {server: open, secret: data("tokn", "t0ken"), wrong: "its Secret can't be used: it has none of the keys username, token, "},
		"nothing at all":                {server: open, secret: nil, wrong: "it has none of the keys"},
	} {
		t.Run(name, func(t *testing.T) {
			url := tc.server.URL
			if tc.host != "" {
				url = strings.Replace(url, "127.0.0.1", tc.host, 1)
			}
			got := whatItSays(t, with(t, url, tc.secret))
			if (got == "") != (tc.wrong == "") || !strings.Contains(got, tc.wrong) {
				t.Errorf("it says %q, want %q", got, tc.wrong)
			}
			for key, value := range tc.secret {
				if len(value) > 1 && strings.Contains(got, strings.TrimSpace(string(value))) {
					t.Errorf("what it says has the value of %s in it: %s", key, got)
				}
			}
		})
	}
	plain := httptest.NewServer(open.Config.Handler)
	defer plain.Close()
	if got := whatItSays(t, with(t, strings.Replace(plain.URL, "http:", "https:", 1), data("ca.crt", ca))); got != "Prometheus can't be asked: it does not speak TLS; its address should begin with http://" {
		t.Errorf("without TLS it says %q", got)
	}
}

// Credentials go nowhere but to the address that was named.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var stolen atomic.Int32
	thief := guarded(t, nil, func(*http.Request) bool { stolen.Add(1); return true })
	ca := inPEM("CERTIFICATE", thief.Certificate().Raw)
	for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL+r.URL.Path, code) }))
		defer s.Close()
		want := fmt.Sprintf("Prometheus can't be asked: it redirects (%d), which is not followed; name the address that it redirects to", code)
		if got := whatItSays(t, with(t, s.URL, data("ca.crt", ca, "username", "a", "password", "b", "header.X-Scope-OrgID", "c"))); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
		plain, err := New(Config{URL: s.URL})
		if err != nil {
			t.Fatal(err)
		}
		if got := whatItSays(t, plain); got != want {
			t.Errorf("without credentials it says %q, want %q", got, want)
		}
	}
	if stolen.Load() != 0 {
		t.Errorf("the redirect was followed %d times", stolen.Load())
	}
}

// A Secret is read now and then, sooner when it is not good, and what it says then is used.
func TestSecretsAreReadAgain(t *testing.T) {
	password := "old"
	server := guarded(t, nil, func(r *http.Request) bool {
		_, given, _ := r.BasicAuth()
		return given == password
	})
	ca := inPEM("CERTIFICATE", server.Certificate().Raw)
	var reads int
	var fails error
	secret := data("ca.crt", ca, "username", "ann", "password", "old")
	now := start
	transport := Authenticated(func(context.Context) (map[string][]byte, error) { reads++; return secret, fails })
	transport.now = func() time.Time { return now }
	defer transport.CloseIdleConnections()
	c, err := New(Config{URL: server.URL, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	gone := fmt.Errorf("%w: it is not there", ErrNoSecret)
	for _, step := range []struct {
		what     string
		after    time.Duration
		secret   string // its password
		password string // the one that is right
		fails    error
		wrong    string
		reads    int
	}{
		{what: "at first", secret: "old", password: "old", reads: 1},
		{what: "a while it is kept", after: 29 * time.Second, secret: "old", password: "old", reads: 1},
		{what: "what is new is not in use yet", secret: "new", password: "old", reads: 1},
		{what: "then it is", after: time.Second, secret: "new", password: "new", reads: 2},
		{what: "the server is first", after: time.Second, secret: "new", password: "newer", wrong: "it refuses the credentials", reads: 2},
		{what: "a refused one is not asked for at every query", after: 3 * time.Second, secret: "newer", password: "newer", wrong: "it refuses the credentials", reads: 2},
		{what: "but soon", after: time.Second, secret: "newer", password: "newer", reads: 3},
		{what: "the API server is away, and nothing is lost", after: time.Minute, secret: "newer", password: "newer", fails: errors.New("timeout"), reads: 4},
		{what: "the Secret is gone", after: 5 * time.Second, secret: "newer", password: "newer", fails: gone, wrong: "no credentials: it is not there", reads: 5},
		{what: "and back", after: 5 * time.Second, secret: "newer", password: "newer", reads: 6},
	} {
		now, password, fails = now.Add(step.after), step.password, step.fails
		secret = data("ca.crt", ca, "username", "ann", "password", step.secret)
		got := whatItSays(t, c)
		if (got == "") != (step.wrong == "") || !strings.Contains(got, step.wrong) {
			t.Errorf("%s: it says %q, want %q", step.what, got, step.wrong)
		}
		if reads != step.reads {
			t.Errorf("%s: it was read %d times, want %d", step.what, reads, step.reads)
		}
	}
}

// Whoever asks in parallel reads the Secret once.
func TestASecretIsReadOnceForAll(t *testing.T) {
	server := guarded(t, nil, anybody)
	var reads atomic.Int32
	transport := Authenticated(func(context.Context) (map[string][]byte, error) {
		reads.Add(1)
		return data("ca.crt", inPEM("CERTIFICATE", server.Certificate().Raw)), nil
	})
	defer transport.CloseIdleConnections()
	c, err := New(Config{URL: server.URL, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	var targets []Target
	for i := range 8 {
		target := shop(Query{Name: "m", Expression: "up"})
		target.Namespace = fmt.Sprint("n", i)
		targets = append(targets, target)
	}
	looks, err := c.Looks(t.Context(), start, targets)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range looks {
		if d := cmp.Diff(ErrEmpty.Error(), l.Metrics[0].Err); d != "" {
			t.Errorf("the metric (-want +got):\n%s", d)
		}
	}
	if reads.Load() != 1 {
		t.Errorf("it was read %d times", reads.Load())
	}
}
