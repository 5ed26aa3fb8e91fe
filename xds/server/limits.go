// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What one pod may take of the control plane's memory. Its token is in its app's reach, and any number of
// streams can be opened with it: without bounds, those of one pod are what all other workloads pay for.
const (
	// maxPodStreams is one for the sidecar, and one for the sidecar that has reconnected before the end of
	// its old stream was noticed here.
	maxPodStreams = 2

	// maxNames is what one stream may name over its whole life, half an hour: subscriptions, and what the
	// client has from an earlier stream. A sidecar with 100 captured ports, in a split, has 803 resources and
	// subscribes to 201 of them by name; each further candidate is 100 endpoints more, so that 2,200 are
	// 11 candidates in half an hour. Who needs more reconnects, and is sent nothing again.
	maxNames = 2200
	// namesPerResource is for those with more ports: at rest there are 3 resources for each port, the opening
	// of a stream names at most 8 (4 clusters, 2 times the endpoints and the route), each candidate one. So 18 per
	// port have room for 10 candidates.
	namesPerResource = 6

	// maxNameBytes bounds a name and a version; the longest of ours is peerconn|65535|<63 bytes>.
	maxNameBytes = 128
	// maxReasonBytes is what is kept of a refusal.
	maxReasonBytes = 1 << 10

	// maxReasons is how many refusals of a key other replicas are told in full, up to 6 KiB each in JSON; of the others
	// they hear shortReasonBytes. Sidecars of a key have the same configuration, and refuse it for the same reason.
	maxReasons       = 10
	shortReasonBytes = 64

	// maxUpdateBytes bounds what another replica says at once, all acknowledgements of a key. Two streams of a pod with
	// the longest names and with reasons of control characters take less than 2 KiB, so that this has room for 32,000
	// pods of one workload at one replica; without malice, for 200,000.
	maxUpdateBytes = 64 << 20
)

// shortened bounds what the refusals among acks take; it changes acks.
func shortened(acks []Ack) []Ack {
	told := 0
	for i := range acks {
		if acks[i].Refused == "" {
			continue
		}
		if told++; told > maxReasons {
			acks[i].Refused = cut(acks[i].Refused, shortReasonBytes)
		}
	}
	return acks
}

// cut is the first n bytes of s at most, without what is no text.
func cut(s string, n int) string {
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}

// admit lets a stream in. Of one pod's the newest stay: a sidecar that comes back must not wait for the end of
// what it left behind.
func (s *Server) admit(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.target = s.targets[st.key]
	if uid := st.who.PodUID; uid != "" {
		for len(s.byPod[uid]) >= maxPodStreams {
			oldest := s.byPod[uid][0]
			s.forget(oldest)
			s.cfg.Metrics.rejected(codes.ResourceExhausted)
			oldest.end(status.Errorf(codes.ResourceExhausted, "pod %s has %d newer streams", oldest.who.Pod, maxPodStreams))
		}
		s.byPod[uid] = append(s.byPod[uid], st)
	}
	s.streams[st.id] = st
	if s.byKey[st.key] == nil {
		s.byKey[st.key] = map[*stream]struct{}{}
	}
	s.byKey[st.key][st] = struct{}{}
	s.cfg.Metrics.connected(len(s.streams))
}

// forget is called with the lock.
func (s *Server) forget(st *stream) {
	delete(s.streams, st.id)
	delete(s.byKey[st.key], st)
	if len(s.byKey[st.key]) == 0 {
		delete(s.byKey, st.key)
		if t := s.targets[st.key]; t != nil && t.leaving {
			delete(s.targets, st.key)
		}
	}
	uid := st.who.PodUID
	s.byPod[uid] = slices.DeleteFunc(s.byPod[uid], func(x *stream) bool { return x == st })
	if len(s.byPod[uid]) == 0 {
		delete(s.byPod, uid)
	}
	s.cfg.Metrics.connected(len(s.streams))
}

// admits counts the names of a request; its errors are gRPC statuses.
func (st *stream) admits(req *discoveryv3.DeltaDiscoveryRequest) error {
	long := func(s string) bool { return len(s) > maxNameBytes }
	if slices.ContainsFunc(req.GetResourceNamesSubscribe(), long) {
		return status.Errorf(codes.InvalidArgument, "a name of more than %d bytes", maxNameBytes)
	}
	for name, version := range req.GetInitialResourceVersions() {
		if long(name) || long(version) {
			return status.Errorf(codes.InvalidArgument, "a name or a version of more than %d bytes", maxNameBytes)
		}
	}
	st.named += len(req.GetResourceNamesSubscribe()) + len(req.GetInitialResourceVersions())
	if most := st.mostNames(); st.named > most {
		return status.Errorf(codes.ResourceExhausted, "more than %d names on one stream", most)
	}
	return nil
}

func (st *stream) mostNames() int {
	resources := 0
	for _, r := range st.content() {
		resources += len(r)
	}
	return max(maxNames, namesPerResource*resources)
}
