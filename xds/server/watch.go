// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/xds"
)

// watch is a client's standing question for one type: it is answered once, as soon as the answer differs
// from what the client has; the acknowledgement opens the next one.
type watch struct {
	req *discoveryv3.DeltaDiscoveryRequest
	sub cache.Subscription
	// out has room for two responses of each type, and the stream takes all out before it opens
	// another watch; a watch sends one.
	out chan cache.DeltaResponse
}

// respond is what the client lacks of have, and what it has that is not in have; nil when there is nothing
// to say. A first question for everything is answered in any case: Envoy waits for it.
func (w *watch) respond(have []xds.Resource) *response {
	r := &response{req: w.req, next: map[string]string{}, body: &discoveryv3.DeltaDiscoveryResponse{TypeUrl: w.req.GetTypeUrl()}}
	returned := w.sub.ReturnedResources()
	for _, x := range have {
		if !w.asksFor(x.Name) {
			continue
		}
		version, has := returned[x.Name]
		if x.Body == nil { // kept, but only the client knows it
			if has {
				r.next[x.Name] = version
			}
			continue
		}
		r.next[x.Name] = x.Version
		if version != x.Version {
			r.body.Resources = append(r.body.Resources, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Body})
		}
	}
	for name := range returned {
		if _, kept := r.next[name]; !kept {
			r.body.RemovedResources = append(r.body.RemovedResources, name)
		}
	}
	slices.Sort(r.body.RemovedResources)
	first := w.sub.IsWildcard() && w.req.GetResponseNonce() == ""
	if r.empty() && !first {
		return nil
	}
	return r
}

func (w *watch) asksFor(name string) bool {
	_, named := w.sub.SubscribedResources()[name]
	return named || w.sub.IsWildcard()
}

// response is one answer. It implements cache.DeltaResponse.
type response struct {
	req  *discoveryv3.DeltaDiscoveryRequest
	body *discoveryv3.DeltaDiscoveryResponse
	next map[string]string
}

func (r *response) empty() bool {
	return len(r.body.GetResources()) == 0 && len(r.body.GetRemovedResources()) == 0
}

func (r *response) GetDeltaDiscoveryResponse() (*discoveryv3.DeltaDiscoveryResponse, error) {
	return r.body, nil
}
func (r *response) GetDeltaRequest() *discoveryv3.DeltaDiscoveryRequest { return r.req }
func (r *response) GetSystemVersion() (string, error)                   { return "", nil }
func (r *response) GetResponseVersion() string                          { return "" }
func (r *response) GetNextVersionMap() map[string]string                { return r.next }
func (r *response) GetReturnedResources() map[string]string             { return r.next }
func (r *response) GetContext() context.Context                         { return context.Background() }

// watcher is the server as go-control-plane's cache.
type watcher struct{ *Server }

func (s watcher) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, errors.New("only the delta protocol is served")
}

func (s watcher) CreateDeltaWatch(req *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "type %q is not served", req.GetTypeUrl())
	}
	id, err := strconv.ParseInt(req.GetNode().GetId(), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reading the stream's number: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.streams[id]
	if !ok {
		return nil, status.Error(codes.Unavailable, "the stream is closed")
	}
	w := &watch{req: req, sub: sub, out: out}
	st.watches[t] = w
	st.push(t)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if st.watches[t] == w {
			st.watches[t] = nil
		}
	}, nil
}

// callbacks are what go-control-plane tells about one stream. It numbers streams too, but has only this one.
type callbacks struct {
	*Server
	id  int64
	end func(cause error)
}

func (s callbacks) OnDeltaStreamOpen(ctx context.Context, _ int64, _ string) error {
	who, key, err := s.cfg.Identify(ctx)
	if err != nil {
		s.cfg.Metrics.rejected(status.Code(err))
		return err
	}
	st := newStream(s.id, key, who, &s.cfg)
	st.end = s.end
	st.later = func(d time.Duration) { time.AfterFunc(d, func() { s.advance(st) }) }
	s.admit(st)
	s.changed(key)
	return nil
}

// advance is for a stream that waited for a time.
func (s callbacks) advance(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.id] == st {
		st.advance()
	}
}

func (s callbacks) OnDeltaStreamClosed(int64, *corev3.Node) {
	s.mu.Lock()
	st, ok := s.streams[s.id]
	if ok {
		s.forget(st)
	}
	s.mu.Unlock()
	if ok {
		s.changed(st.key)
	}
}

// OnStreamDeltaRequest replaces the client's node by the stream's number: who a sidecar is was decided
// when its stream opened, by its token.
func (s callbacks) OnStreamDeltaRequest(_ int64, req *discoveryv3.DeltaDiscoveryRequest) error {
	req.Node = &corev3.Node{Id: strconv.FormatInt(s.id, 10)}
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return status.Errorf(codes.InvalidArgument, "type %q is not served", req.GetTypeUrl())
	}
	s.mu.Lock()
	st, ok := s.streams[s.id]
	if !ok {
		s.mu.Unlock()
		return status.Error(codes.Unavailable, "the stream is closed")
	}
	if err := st.admits(req); err != nil {
		s.mu.Unlock()
		return err
	}
	news := st.request(t, req)
	s.mu.Unlock()
	if req.GetErrorDetail() != nil {
		s.cfg.Log.Info("Sidecar refused its configuration", "workload", st.key.String(), "pod", st.who.Pod,
			"type", t.String(), "reason", refusal(req.GetErrorDetail().GetMessage()))
	}
	if news {
		s.changed(st.key)
	}
	return nil
}

func (s callbacks) OnStreamDeltaResponse(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
	t, _ := xds.TypeOf(r.GetTypeUrl())
	f := flight{of: t, versions: map[string]string{}, removed: r.GetRemovedResources()}
	for _, x := range r.GetResources() {
		f.versions[x.GetName()] = x.GetVersion()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.streams[s.id]; ok {
		st.flights[r.GetNonce()] = f
	}
}
