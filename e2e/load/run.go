// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

type sender interface {
	send(ctx context.Context) Outcome
}

// Run sends requests until the duration or the number of requests is reached, or ctx ends; then it
// waits for those outstanding and returns the final report. On the way it hands a report to each
// every second. An error means that nothing was sent.
func Run(ctx context.Context, c Config, each func(Report)) (Report, error) {
	if err := c.Validate(); err != nil {
		return Report{}, fmt.Errorf("checking the configuration: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	targets, err := NewTargets(ctx, c.Host)
	if err != nil {
		return Report{}, err
	}
	go targets.Follow(ctx)
	targets.AwaitListening(ctx, c.ports()...)

	grpcSender := &grpcSender{targets: targets, port: c.GRPCPort, authority: c.authority(), conns: map[string]*grpc.ClientConn{}}
	defer grpcSender.close()
	r := &run{config: c, recorder: NewRecorder(time.Now()), senders: c.senders(targets, grpcSender)}
	r.left.Store(c.Requests)

	done := make(chan struct{})
	go func() {
		defer close(done)
		r.sendAll(ctx)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return r.recorder.Report(time.Now(), true), nil
		case now := <-tick.C:
			each(r.recorder.Report(now, false))
		}
	}
}

type run struct {
	config   Config
	recorder *Recorder
	senders  map[Kind]sender
	left     atomic.Int64 // requests still to be sent, when Config.Requests bounds them
	inFlight atomic.Int64
}

// sendAll returns when all requests have an outcome.
func (r *run) sendAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.config.Duration)
	defer cancel()
	var pacers, requests sync.WaitGroup
	for kind, rate := range r.config.Rates {
		if rate <= 0 {
			continue
		}
		pacers.Go(func() {
			pace(ctx, rate, r.take, func(at time.Time) {
				requests.Go(func() { r.one(kind, at) })
			})
		})
	}
	pacers.Wait()
	requests.Wait()
}

// take says whether one more request may be sent, and counts it.
func (r *run) take() bool {
	return r.config.Requests <= 0 || r.left.Add(-1) >= 0
}

// one sends a request. It outlives the run's context: what was begun is counted to its end.
func (r *run) one(kind Kind, at time.Time) {
	r.recorder.Sent(kind)
	defer r.inFlight.Add(-1)
	var o Outcome
	if r.inFlight.Add(1) > MaxInFlight {
		o = Outcome{Class: ClassOverload}
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), r.config.timeout(kind))
		defer cancel()
		o = r.senders[kind].send(ctx)
	}
	now := time.Now()
	o.Kind, o.Latency = kind, now.Sub(at)
	r.recorder.Done(o, now)
}

func (c Config) senders(targets *Targets, g *grpcSender) map[Kind]sender {
	keep := &http.Client{Transport: newTransport(KindHTTP1)}
	base := httpSender{client: keep, targets: targets, port: c.HTTPPort, host: c.authority(), path: "/"}
	fresh, h2c, slow, stream := base, base, base, base
	fresh.client = &http.Client{Transport: newTransport(KindNew)}
	h2c.client = &http.Client{Transport: newTransport(KindH2C)}
	slow.path = "/slow?d=" + url.QueryEscape(c.SlowFor.String())
	stream.path, stream.stream = "/stream?d="+url.QueryEscape(c.StreamFor.String()), true
	return map[Kind]sender{
		KindHTTP1: &base, KindNew: &fresh, KindH2C: &h2c, KindGRPC: g, KindSlow: &slow, KindStream: &stream,
	}
}

// timeout is how long a request of this kind may take in all.
func (c Config) timeout(k Kind) time.Duration {
	switch k {
	case KindSlow:
		return c.SlowFor + c.Timeout
	case KindStream:
		return c.StreamFor + c.Timeout
	}
	return c.Timeout
}

// ports are those that this configuration sends to.
func (c Config) ports() []int {
	var ports []int
	if c.Rates[KindGRPC] > 0 {
		ports = append(ports, c.GRPCPort)
	}
	for k, rate := range c.Rates {
		if k != KindGRPC && rate > 0 {
			return append(ports, c.HTTPPort)
		}
	}
	return ports
}

func (c Config) authority() string {
	if c.Authority != "" {
		return c.Authority
	}
	return c.Host
}

func hostPort(addr string, port int) string { return net.JoinHostPort(addr, strconv.Itoa(port)) }
