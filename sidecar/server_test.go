// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"fmt"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/connectivity"
)

// watchForTest keeps a stream open and hands on what happens to it.
func watchForTest(t *testing.T, cfg Config) (events chan serverEvent, state func() connectivity.State) {
	t.Helper()
	conn, err := dialServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events = make(chan serverEvent, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchServer(ctx, discoveryv3.NewAggregatedDiscoveryServiceClient(conn), events)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		conn.Close()
	})
	return events, conn.GetState
}

func TestEachStreamPresentsTheTokenOfItsTime(t *testing.T) {
	var cfg Config
	server := newControlPlane(t, &cfg)
	watchForTest(t, cfg)
	for _, token := range []string{"token-1", "token-2"} {
		server.writeToken(cfg, token)
		server.start(nil)
		eventually(t, token+" is presented", 10*time.Second, func() error {
			if got := server.lastToken(); got != "Bearer "+token {
				return fmt.Errorf("presented %q", got)
			}
			return nil
		})
		server.stop()
	}
}

func TestOnlyTheServerThatTheCAVouchesForIsTalkedTo(t *testing.T) {
	tests := map[string]func(*Config){
		"another name": func(c *Config) { c.ServerName = "other.example.com" },
		"another CA":   func(c *Config) { _, c.CA = certificate(t) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			server := newControlPlane(t, &cfg)
			change(&cfg)
			server.start(nil)
			events, state := watchForTest(t, cfg)
			eventually(t, "the attempt has failed", 10*time.Second, func() error {
				if s := state(); s != connectivity.TransientFailure {
					return fmt.Errorf("state %v", s)
				}
				return nil
			})
			if len(events) != 0 || server.lastToken() != "" {
				t.Errorf("%d events, token %q; want neither", len(events), server.lastToken())
			}
		})
	}
	t.Run("no CA at all", func(t *testing.T) {
		if _, err := dialServer(Config{ServerAddress: "127.0.0.1:1", CA: []byte("none")}); err == nil {
			t.Error("accepted")
		}
	})
}

func TestALostServerIsTriedAgainWithinASecondOrTwo(t *testing.T) {
	var cfg Config
	server := newControlPlane(t, &cfg)
	events, _ := watchForTest(t, cfg)
	opened := func() error {
		select {
		case e := <-events:
			if e.stream == nil {
				return fmt.Errorf("not opened: %v", e.err)
			}
			return nil
		default:
			return fmt.Errorf("nothing happened")
		}
	}
	for range 2 {
		server.start(nil)
		took := eventually(t, "a stream is open", 5*time.Second, opened)
		t.Logf("open after %v", took)
		server.stop()
		sleep(t.Context(), 2*time.Second) // long enough for the longest interval between attempts
	}
}
