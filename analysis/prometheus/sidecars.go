// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/analysis"
)

const (
	// exposedPath is where a sidecar exposes its counters, here those of requests only: no histogram, and nothing about itself.
	exposedPath   = "/stats/prometheus"
	exposedFilter = `^cluster\.hg\|.*\.(upstream_rq_(101|[1-5]xx|total|rx_reset|pending_failure_eject)|upstream_cx_(connect_fail|protocol_error)|grpc\.-?[0-9]+)$`
	// maxExposed is how many bytes that may have. A sidecar with 100 ports, in a split, exposes half of it.
	maxExposed = 1 << 20

	// maxExposedCounters is how many of them a sidecar may have, and maxRead how many there may be in all, of which each namespace has its
	// share: what is parsed and remembered takes memory that all have to share.
	maxExposedCounters = 4000
	maxRead            = 100_000

	// readTimeout bounds the reading of one sidecar, namespaceTimeout that of all in a namespace, and allTimeout that of all:
	// who tells lies about his pods, or has slow ones, waits himself.
	readTimeout      = time.Second
	namespaceTimeout = 2 * time.Second
	allTimeout       = 4 * time.Second
	// readsAtOnce is how many sidecars of a namespace are read at once; of namespaces it is lanes.
	readsAtOnce = 4
)

// Sidecars reads the counters from the sidecars themselves, with no Prometheus in between. It remembers the last values
// of the counters, as a Client does.
type Sidecars struct {
	transport http.RoundTripper
	parsing   sync.Mutex // one answer at a time: a parsed one takes many times its size

	mu     sync.Mutex // one look at a time
	memory memory
}

// NewSidecars reads through connections that dial makes; nil: by the network of this process. It does not connect.
func NewSidecars(dial func(ctx context.Context, network, address string) (net.Conn, error)) *Sidecars {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	// Without the environment's proxy: pods are not behind it. No redirect is followed, because nothing here follows any.
	next := &http.Transport{
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			// Without the read's context, which the transport does not end a dial by, but with its time.
			ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
			defer cancel()
			return dial(ctx, network, address)
		},
		MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1,
		// Longer than between two looks.
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	return &Sidecars{transport: limitedTransport{next: next, max: maxExposed}, memory: memory{room: maxRead}}
}

// Looks makes one look at every target, in their order, of its requests and errors only. at must rise from call to call.
// What a sidecar that can't be read has counted comes with its next answer. The error says of which targets no
// sidecar could be read, and why, for a log: the Looks are complete and usable with it.
func (s *Sidecars) Looks(ctx context.Context, at time.Time, targets []Target) ([]analysis.Look, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, allTimeout)
	defer cancel()
	var a answer
	var mu sync.Mutex // of a and errs
	errs := make([]error, 0, len(targets))
	var group errgroup.Group
	group.SetLimit(lanes)
	namespaces := byNamespace(targets)
	for _, indices := range namespaces { // in no order, so that whoever comes late comes earlier another time
		rand.Shuffle(len(indices), func(i, j int) { indices[i], indices[j] = indices[j], indices[i] })
		left := s.memory.room / len(namespaces)
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, namespaceTimeout)
			defer cancel()
			for _, i := range indices {
				found, err := s.readAll(ctx, targets[i])
				if left -= len(found); left < 0 {
					found, err = nil, fmt.Errorf("reading the counters of %s/%s: its namespace has too many", targets[i].Namespace, targets[i].Workload)
				}
				mu.Lock()
				a.samples, errs = append(a.samples, found...), append(errs, err)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait() // errs has them
	var out []analysis.Look
	s.memory, out = s.memory.look(at, targets, a, 0)
	return out, errors.Join(errs...)
}

// readAll reads a target's sidecars. It fails when none of them can be read.
func (s *Sidecars) readAll(ctx context.Context, t Target) (out []sample, err error) {
	var mu sync.Mutex
	answered := false
	pods := make(map[string]int, len(t.Sidecars))
	for _, address := range t.Sidecars {
		pods[address]++
	}
	var group errgroup.Group
	group.SetLimit(readsAtOnce)
	for pod, address := range t.Sidecars {
		if pods[address] > 1 { // one of them is gone, and it is not known which
			continue
		}
		group.Go(func() error {
			found, failed := s.read(ctx, t, pod, address)
			mu.Lock()
			defer mu.Unlock()
			if failed != nil {
				err = failed
				return nil
			}
			answered, out = true, append(out, found...)
			return nil
		})
	}
	_ = group.Wait() // err has one of them
	if answered || err == nil {
		return out, nil
	}
	return nil, fmt.Errorf("reading the counters of %s/%s from its sidecars: %w", t.Namespace, t.Workload, err)
}

// read reads one sidecar's counters of its own workload, named by the pod that was asked.
func (s *Sidecars) read(ctx context.Context, t Target, pod, address string) ([]sample, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	u := url.URL{Scheme: "http", Host: address, Path: exposedPath, RawQuery: url.Values{"filter": {exposedFilter}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d from %s", resp.StatusCode, address)
	}
	text, err := countersIn(resp.Body)
	if err != nil {
		return nil, err
	}
	s.parsing.Lock()
	defer s.parsing.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return exposition(text, t, pod)
}

// countersIn are the lines of the counters that a look counts by. The others are never parsed.
func countersIn(text io.Reader) (io.Reader, error) {
	var out bytes.Buffer
	lines := bufio.NewScanner(text)
	for n := 0; lines.Scan(); {
		name, _, ok := bytes.Cut(lines.Bytes(), []byte("{"))
		if !ok || !slices.Contains(countedNames, string(name)) {
			continue
		}
		if n++; n > maxExposedCounters {
			return nil, errTooLarge
		}
		out.Write(lines.Bytes())
		out.WriteByte('\n')
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	return &out, nil
}

// exposition are the counters in a sidecar's exposition (the Prometheus text format) that are the target's.
func exposition(text io.Reader, t Target, pod string) (out []sample, err error) {
	defer func() {
		if r := recover(); r != nil { // the parser (v0.67.5) does at some input, as the fuzz test found
			out, err = nil, fmt.Errorf("reading counters: %v", r)
		}
	}()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	var found model.Vector
	for _, family := range families {
		some, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, family)
		if err != nil {
			return nil, fmt.Errorf("reading counters: %w", err)
		}
		found = append(found, some...)
	}
	for _, e := range found {
		// As a scrape has it: whatever the pod says of itself, it speaks for no other.
		e.Metric[labelPod], e.Metric[labelPodNamespace] = model.LabelValue(pod), model.LabelValue(t.Namespace)
		if c, ok := seriesOf(e.Metric); ok && c.workload == t.key() && c.counted() {
			out = append(out, sample{series: c, Value: float64(e.Value)})
		}
	}
	return out, nil
}
