// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Ack is what is known about one connected sidecar.
type Ack struct {
	// Pod and UID are from its token.
	Pod string `json:"pod"`
	UID string `json:"uid"`
	// Since is when its stream opened.
	Since time.Time `json:"since"`
	// Known says that State is in force, and that nothing else is or will be as long as the replica that it is
	// connected to wants nothing else: the sidecar has acknowledged a configuration of this State completely (every
	// cluster, endpoint, listener and route), and no other State was wanted since. Otherwise State is zero.
	Known bool  `json:"known"`
	State State `json:"state"`
	// Refused is Envoy's reason for refusing the newest configuration; empty when it did not.
	Refused string `json:"refused,omitempty"`
}

// Acks are those of all sidecars of key that are connected to this replica, by pod.
func (s *Server) Acks(key Key) []Ack {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acks(key)
}

func (s *Server) acks(key Key) []Ack {
	out := make([]Ack, 0, len(s.byKey[key]))
	for st := range s.byKey[key] {
		out = append(out, st.ack())
	}
	slices.SortFunc(out, func(a, b Ack) int {
		if c := strings.Compare(a.Pod, b.Pod); c != 0 {
			return c
		}
		return a.Since.Compare(b.Since)
	})
	return out
}

// connectedKeys are the keys that have connected sidecars.
func (s *Server) connectedKeys() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Key, 0, len(s.byKey))
	for k := range s.byKey {
		out = append(out, k)
	}
	return out
}

// changes hands the keys that changed to any number of readers, each key once until it is read.
type changes struct {
	mu      sync.Mutex
	readers map[*reader]struct{}
}

type reader struct {
	keys map[Key]struct{}
	wake chan struct{} // holds one
}

func newChanges() *changes { return &changes{readers: map[*reader]struct{}{}} }

func (c *changes) announce(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.readers {
		r.keys[key] = struct{}{}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

func (c *changes) subscribe() *reader {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &reader{keys: map[Key]struct{}{}, wake: make(chan struct{}, 1)}
	c.readers[r] = struct{}{}
	return r
}

func (c *changes) unsubscribe(r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.readers, r)
}

// take empties the reader.
func (c *changes) take(r *reader) []Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Key, 0, len(r.keys))
	for k := range r.keys {
		out = append(out, k)
	}
	clear(r.keys)
	return out
}
