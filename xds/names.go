// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"strconv"
)

// Ports of the data plane inside every injected pod. They equal those of api/v1alpha1, which this
// package must not import; a test of xds/server compares them.
const (
	// CapturePort is where nftables redirects captured traffic, and traffic to PeerPort.
	CapturePort uint32 = 15600
	// PeerPort is where sidecars of the other revision deliver requests.
	PeerPort uint32 = 15601
	// AdminPort is Envoy's admin interface, loopback only.
	AdminPort uint32 = 15602
	// StatsPort serves /ready and /stats/prometheus.
	StatsPort uint32 = 15603
)

// PortHeader tells the receiving sidecar which of its captured ports a peer means. Sidecars add it on
// the way to a peer, and remove it from what clients send.
const PortHeader = "x-headgate-port"

// forHeader names the workload and the revision that a peer means (see Workload.identity). Addresses of pods are used again,
// and a sidecar that is cut off, or slow to hear, knows the old ones. Added and removed as PortHeader is; a sidecar with a
// configuration from before this header says nothing, and is answered.
const forHeader = "x-headgate-for"

// handedOnHeader says that a sidecar has handed the request on (see handsOn), so that nobody does so again. Added and removed
// as PortHeader is.
const handedOnHeader = "x-headgate-handed-on"

// unreachedHeader tells the sidecar of the other revision that its request has reached nobody, because the pod is
// ending and its app has ended already, because nobody was there to hand it on to, or because it was meant for another: it
// may be answered elsewhere.
const unreachedHeader = "x-headgate-unreached"

// LeavingKey is the runtime key of Envoy that says that its pod is ending: 100, or absent.
const LeavingKey = "headgate.leaving"

// PeerConnectionsStat is the gauge that counts the connections of peers to this sidecar.
const PeerConnectionsStat = "http.peers.downstream_cx_active"

// BufferedStat is the end of the names of gauges that count the bytes that clients, or peers, have yet to be sent.
const BufferedStat = "downstream_cx_tx_bytes_buffered"

// EndedKey is the runtime key of Envoy that says that the app listens on a captured port no more, because its pod is
// ending: 100, or absent.
func EndedKey(port uint32) string { return "headgate.ended." + strconv.Itoa(int(port)) }

// metadataKey is where a peer's address carries what PortHeader and forHeader say, and a request its content-type if it is
// a gRPC call.
const metadataKey = "headgate"

// forwardedProtoHeader carries a client's x-forwarded-proto past Envoy, which would overwrite it.
const forwardedProtoHeader = "x-headgate-forwarded-proto"

// contentTypeHeader carries the content-type of a gRPC call past Envoy's router (see lateMutation).
const contentTypeHeader = "x-headgate-content-type"

// Names of resources that exist once.
const (
	captureListener    = "capture"
	peerRoutes         = "peers"
	passthroughCluster = "passthrough"
)

// Hop is the role of a cluster in the statistics.
type Hop string

const (
	// HopLocal counts requests answered by this pod's app.
	HopLocal Hop = "local"
	// HopDirect counts requests for an IP address, which are answered by this pod's app and never split. They are not the
	// revision's share: nobody judges by them.
	HopDirect Hop = "direct"
	// HopIn counts requests that came from a peer. They were counted at the sidecar that sent them.
	HopIn Hop = "in"
	// HopPeer counts requests meant for the other revision, also those that went local in the end.
	HopPeer Hop = "peer"
	// HopPeerConn counts connections to the other revision's pods, and the requests that used them.
	HopPeerConn Hop = "peerconn"
)

func localCluster(port uint32) string { return fmt.Sprintf("local|%d", port) }

func directCluster(port uint32) string { return fmt.Sprintf("direct|%d", port) }

func inCluster(port uint32) string { return fmt.Sprintf("in|%d", port) }

func inOnceCluster(port uint32) string { return fmt.Sprintf("inonce|%d", port) }

func peerCluster(port uint32, revision string) string {
	return fmt.Sprintf("peer|%d|%s", port, revision)
}

func peerConnCluster(port uint32, revision string) string {
	return fmt.Sprintf("peerconn|%d|%s", port, revision)
}

func captureRoutes(port uint32) string { return fmt.Sprintf("capture|%d", port) }

// identity is a revision of the workload among all that may be met at an address.
func (w *Workload) identity(revision string) string {
	return w.Namespace + "/" + w.Name + "/" + revision
}

// statName is the alt_stat_name from which the bootstrap's tag rules make labels. The separator is a
// bar because names of workloads may contain dots.
func (w *Workload) statName(port uint32, hop Hop, revision string) string {
	return "hg|" + w.Namespace + "|" + w.Name + "|" + strconv.Itoa(int(port)) + "|" + string(hop) + "|" + revision
}
