// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

// Workload is all that the configuration of its sidecars depends on. It is keyed by (namespace, name,
// revision), never by pod, so that pods come and go without a push.
type Workload struct {
	// Namespace and Name are the Deployment's.
	Namespace, Name string
	// Revision is the pod-template-hash of the sidecars that this configuration is for.
	Revision string
	// Ports are the captured ports of that revision, ascending, without duplicates.
	Ports []Port
	// Split is nil at rest: everything local, no endpoints.
	Split *Split
}

// Protocol says how a captured port is handled.
type Protocol int

const (
	// Auto sniffs HTTP/1.x and h2c and splits them; other bytes go to the local app.
	Auto Protocol = iota
	// TCP passes bytes to the local app, without sniffing, so that server-first protocols are not delayed.
	TCP
)

// Port is one captured container port.
type Port struct {
	// Number is the container port of this revision, 1 to 65535.
	Number uint32
	// Protocol says how it is handled.
	Protocol Protocol
	// Peer is the corresponding port of the other revision (same Service port); 0 when there is
	// none, and then this port is not split.
	Peer uint32
}

// Split divides requests between this revision and one other.
type Split struct {
	// Peer is the other revision.
	Peer string
	// Endpoints are the addresses of the other revision's pods that may get requests (ready but for
	// the gate), sorted, without duplicates. May be empty: then everything stays local.
	Endpoints []string
	// PeerWeight is the share of requests for the other revision, 0 to 100.
	PeerWeight uint32
}
