// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/e2e/faults/proxyfault"
)

// faultyProxy stands between clients and a server, and makes what is between them worse. Credentials are the
// clients' own: they are passed on.
type faultyProxy struct {
	next     http.Handler
	faults   atomic.Pointer[proxyfault.Faults]
	requests atomic.Int64
	writes   atomic.Int64
	refused  atomic.Int64

	began counters // of the faults that are in force

	// address and tls (nil: none) are where and how it listens.
	address string
	tls     *tls.Config

	mu     sync.Mutex
	server *http.Server // nil: nobody listens
	back   *time.Timer  // listens again; nil: never
}

// runProxy serves until ctx ends, by TLS if TLS_CERT and TLS_KEY hold a certificate. Faults are set by POST
// /faults on the control address.
func runProxy(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("proxy", flag.ContinueOnError)
	to := flags.String("to", "", "the server's base address (default: the cluster's API server)")
	listen := flags.String("listen", ":8443", "address")
	control := flags.String("control", ":8081", "address for POST /faults")
	if err := flags.Parse(args); err != nil {
		return err
	}
	next, err := forwarder(*to)
	if err != nil {
		return err
	}
	p := &faultyProxy{next: next, address: *listen}
	if certificate := os.Getenv("TLS_CERT"); certificate != "" {
		pair, err := tls.X509KeyPair([]byte(certificate), []byte(os.Getenv("TLS_KEY")))
		if err != nil {
			return fmt.Errorf("reading TLS_CERT and TLS_KEY: %w", err)
		}
		p.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	}
	if err := p.set(proxyfault.Faults{}); err != nil {
		return err
	}
	defer p.leave()
	panel := &http.Server{Addr: *control, Handler: p.panel(), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = panel.Close() })()
	if err := panel.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the control: %w", err)
	}
	return nil
}

// set makes the proxy behave like this from now on.
func (p *faultyProxy) set(f proxyfault.Faults) error {
	p.faults.Store(&f)
	p.began.forget()
	if f.AwayFor.Duration <= 0 {
		return p.listen()
	}
	p.leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.back = time.AfterFunc(f.AwayFor.Duration, func() {
		if err := p.listen(); err != nil {
			fmt.Fprintln(os.Stderr, "app: listening again:", err)
		}
	})
	return nil
}

// listen has somebody listen, if nobody does.
func (p *faultyProxy) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stay()
	if p.server != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, TLSConfig: p.tls}
	if p.tls != nil {
		l = tls.NewListener(l, p.tls)
	}
	go p.server.Serve(l) //nolint:errcheck // it ends when the server is closed
	return nil
}

// leave ends all connections; there are no new ones until listen is called.
func (p *faultyProxy) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stay()
	if p.server != nil {
		_ = p.server.Close()
		p.server = nil
	}
}

// stay forgets when to come back. It is called with the lock held.
func (p *faultyProxy) stay() {
	if p.back != nil {
		p.back.Stop()
		p.back = nil
	}
}

// ServeHTTP delays the request, and refuses it or passes it on.
func (p *faultyProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.faults.Load()
	p.requests.Add(1)
	if wait(r.Context(), f.Latency.Duration) != nil {
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if status := f.Refuse(p.writes.Add(1)); status != 0 {
			p.refused.Add(1)
			refuse(w, status)
			return
		}
	}
	r = r.WithContext(context.WithValue(r.Context(), faultsKey{}, f))
	p.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), countersKey{}, &p.began)))
}

// faultsKey is the key by which a request's context has the faults that were in force when it came.
type faultsKey struct{}

// forwarder sends requests to a server.
func forwarder(to string) (http.Handler, error) {
	transport := &http.Transport{ForceAttemptHTTP2: true}
	if to == "" {
		ca, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
		if err != nil {
			return nil, fmt.Errorf("reading the cluster's CA: %w", err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
		to = "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	target, err := url.Parse(to)
	if err != nil {
		return nil, fmt.Errorf("parsing the server's address: %w", err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if f, ok := r.In.Context().Value(faultsKey{}).(*proxyfault.Faults); ok && (f.NaN || f.Reset) {
				r.Out.Header.Del("Accept-Encoding") // the transport decompresses only what it asked for itself
			}
		},
		FlushInterval: -1, // watches
		Transport:     transport,
		ModifyResponse: func(r *http.Response) error {
			f, ok := r.Request.Context().Value(faultsKey{}).(*proxyfault.Faults)
			switch {
			case ok && f.NaN:
				return changed(r, func(body []byte) []byte { return sample.ReplaceAll(body, []byte(`$1"NaN"`)) })
			case ok && f.Reset:
				return restarted(r)
			}
			return nil
		},
	}, nil
}

// sample is the value of one in the answer to an instant query: [time, "value"].
var sample = regexp.MustCompile(`("value":\[[^,\]]*,)"[^"]*"`)

// changed replaces the body of an answer.
func changed(r *http.Response, change func([]byte) []byte) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	_ = r.Body.Close()
	body = change(body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// refuse answers as the API server would.
func refuse(w http.ResponseWriter, code int) {
	reasons := map[int]metav1.StatusReason{
		http.StatusConflict: metav1.StatusReasonConflict, http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests,
		http.StatusInternalServerError: metav1.StatusReasonInternalError,
	}
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reasons[code], Message: "refused, as asked",
	})
}

// panel sets faults, and tells what was seen so far.
func (p *faultyProxy) panel() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f proxyfault.Faults
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := p.set(f); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(proxyfault.Counts{Requests: p.requests.Load(), Writes: p.writes.Load(), Refused: p.refused.Load()})
	})
	return mux
}
