// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"fmt"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/xds"
)

// discovery serves delta ADS to Envoy.
type discovery struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	rest   xds.Resources
	server discoveryv3.AggregatedDiscoveryServiceClient
	// live tells whether Envoy has once had a whole configuration; false, nil means that it is known not to.
	live func(context.Context) (bool, error)
	// unreachable tells that the server was tried and could not be reached, just now.
	unreachable func() bool
	log         logr.Logger
}

// envoyStream is the server's end of Envoy's stream.
type envoyStream = grpc.BidiStreamingServer[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]

// DeltaAggregatedResources serves one stream of Envoy until Envoy ends it. One goroutine owns the
// relay; the two that receive only hand on.
func (d *discovery) DeltaAggregatedResources(envoy envoyStream) error {
	ctx, cancel := context.WithCancel(envoy.Context())
	defer cancel()
	requests, ended := make(chan *discoveryv3.DeltaDiscoveryRequest), make(chan error, 1)
	go func() { ended <- receiveRequests(ctx, envoy, requests) }()
	events := make(chan serverEvent)
	go watchServer(ctx, d.server, events)

	p := &pipe{relay: newRelay(d.rest, time.Now()), envoy: envoy, log: d.log}
	tick := time.NewTicker(patience / 10)
	defer tick.Stop()
	for {
		var err error
		select {
		case req := <-requests:
			err = p.fromEnvoy(req)
		case e := <-events:
			err = p.fromServer(e)
		case err := <-ended:
			return err
		case <-tick.C:
		}
		if err == nil {
			err = d.rescue(ctx, p)
		}
		if err != nil {
			return fmt.Errorf("sending to Envoy: %w", err)
		}
	}
}

func receiveRequests(ctx context.Context, envoy envoyStream, requests chan<- *discoveryv3.DeltaDiscoveryRequest) error {
	for {
		req, err := envoy.Recv()
		if err != nil {
			return err
		}
		select {
		case requests <- req:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rescue gives an Envoy that waits too long for its first configuration the one at rest. Too long is
// no time at all where there is nobody to wait for: this may be an Envoy after a crash, and requests
// are being refused.
func (d *discovery) rescue(ctx context.Context, p *pipe) error {
	if !p.relay.waiting() || !d.unreachable() && time.Now().Before(p.relay.impatient()) {
		return nil
	}
	if !d.notLive(ctx) {
		return nil
	}
	for _, resp := range p.relay.atRest() {
		if !p.rescued {
			d.log.Info("Serving the configuration at rest, because the server does not answer")
			p.rescued = true
		}
		if err := p.envoy.Send(resp); err != nil {
			return err
		}
	}
	return nil
}

// notLive: Envoy says itself that it is not live yet. One that does not even answer for itself is asked again
// at the next tick.
func (d *discovery) notLive(ctx context.Context) bool {
	live, err := d.live(ctx)
	return err == nil && !live
}

// pipe is the relay between the two streams.
type pipe struct {
	relay *relay
	envoy envoyStream
	// server is nil when there is none.
	server serverStream
	log    logr.Logger
	// answered and rescued keep the log to one line for each change.
	answered, rescued bool
	lastError         string
}

// toServer sends; that the stream broke is told by its receiving end.
func (p *pipe) toServer(req *discoveryv3.DeltaDiscoveryRequest) {
	if req != nil && p.server != nil {
		_ = p.server.Send(req)
	}
}

func (p *pipe) fromEnvoy(req *discoveryv3.DeltaDiscoveryRequest) error {
	if e := req.GetErrorDetail(); e != nil {
		p.log.Info("Envoy refused its configuration", "type", req.GetTypeUrl(), "message", e.GetMessage())
	}
	p.toServer(p.relay.fromEnvoy(req))
	return nil
}

func (p *pipe) fromServer(e serverEvent) error {
	switch {
	case e.err != nil:
		p.relay.lost()
		p.server = nil
		if text := e.err.Error(); p.answered || text != p.lastError {
			p.log.Info("Lost the server", "error", text)
			p.lastError = text
		}
		p.answered = false
	case e.stream != nil:
		p.server = e.stream
		for _, req := range p.relay.connected() {
			p.toServer(req)
		}
	default:
		if !p.answered {
			p.log.Info("Serving the server's configuration")
			p.answered, p.rescued = true, false
		}
		if resp := p.relay.fromServer(e.response, time.Now()); resp != nil {
			return p.envoy.Send(resp)
		}
	}
	return nil
}
