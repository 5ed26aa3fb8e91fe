// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/composite/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// LeastEjection is for how long at first a peer is left out that can't be connected to, or says that it is ending.
const LeastEjection = 2 * time.Second

const (
	// localConnectTimeout bounds the wait for an app whose accept queue is full: the kernel sends a
	// dropped SYN again after 1, 3 and 7 s, as it would for the client without a sidecar.
	localConnectTimeout = 10 * time.Second
	// peerConnectTimeout is what a lost node may cost one request, which then goes local. Pods of a cluster answer within
	// milliseconds, a SYN that was lost is sent again after a second, and what a client sends meanwhile has to be kept (keptBody).
	peerConnectTimeout = 250 * time.Millisecond

	// localIdleTimeout closes unused connections to the app before the app does. An app that closes in
	// the moment in which a request is sent costs that request (nobody knows whether it was read, so it
	// is not sent again). Common keep-alive timeouts are 2 s (gunicorn), 5 s (Node.js, uvicorn,
	// Apache), 20 s and more (others); a new connection inside the pod costs some 50 microseconds.
	localIdleTimeout = time.Second
	// peerIdleTimeout may be longer: the other end is a sidecar, which never closes unused connections.
	peerIdleTimeout = 30 * time.Second

	// peerRequests is how many requests a connection to a peer carries. The HTTP/2 library at the other end (nghttp2) cuts a
	// connection of which 1000 streams, and 33 more in each second, were reset, and all clients that give up early share it.
	peerRequests = 900

	// A connection to a peer is asked whether it is alive every aliveInterval, and closed when nothing at all has come by it for
	// aliveTimeout. So long requests over HTTP/2 hang when a peer's node is lost; without it, until somebody takes its pods out,
	// which Kubernetes does after some 50 s. A second would do on a quiet network. But a connection that is closed in vain costs all
	// clients' calls under way, for which the candidate is blamed. Packets that are lost are sent again after 0.2, 0.6, 1.4 and 3 s;
	// a peer's sidecar with a hundredth of a CPU answered within 3 s, and on two cores that forty processes wanted calls took as long.
	aliveInterval = time.Second
	aliveTimeout  = 5 * time.Second

	// unlimited stands for "no circuit breaker": the sidecar must not refuse what the app would take.
	unlimited = 1 << 30

	// maxHeadersKB and maxHeaders let through what apps configured for large headers accept.
	maxHeadersKB = 1024
	maxHeaders   = 1000
)

// clusters are those of every captured port, of the peers where there is a split, and the
// pass-through for connections to undeclared ports.
func clusters(w *Workload) []*clusterv3.Cluster {
	out := []*clusterv3.Cluster{originalDestination(passthroughCluster)}
	for _, p := range w.Ports {
		out = append(out, local(w, p), in(w, p), inOnce(w, p))
		if p.Protocol != TCP {
			out = append(out, direct(w, p))
		}
		if splits(w, p) {
			out = append(out, peerConn(w, p), peer(w, p))
		}
	}
	return out
}

// splits says that p has clusters for the other revision, also while its weight is 0: the connections'
// targets are known and acknowledged before the first request needs them.
func splits(w *Workload, p Port) bool { return w.Split != nil && p.Protocol != TCP && p.Peer != 0 }

// originalDestination connects to where the client connected: the pod's own address of the same family,
// restored by the listener. So the configuration needs no address, and fits every pod.
func originalDestination(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       duration(localConnectTimeout),
		CircuitBreakers:      noBreakers(),
	}
}

func local(w *Workload, p Port) *clusterv3.Cluster {
	c := originalDestination(localCluster(p.Number))
	c.AltStatName = w.statName(p.Number, HopLocal, w.Revision)
	c.TypedExtensionProtocolOptions = httpOptions(localIdleTimeout)
	return c
}

// direct is local for requests that mean this very pod (see addressLiteral): scrapes, health checks. Each pod gets as many,
// whatever the weight, so they would dilute the errors of the revision with more pods.
func direct(w *Workload, p Port) *clusterv3.Cluster {
	c := local(w, p)
	c.Name, c.AltStatName = directCluster(p.Number), w.statName(p.Number, HopDirect, w.Revision)
	return c
}

// in is local for requests that arrived at the peer port: same address, the app's port.
func in(w *Workload, p Port) *clusterv3.Cluster {
	c := originalDestination(inCluster(p.Number))
	c.AltStatName = w.statName(p.Number, HopIn, w.Revision)
	c.TypedExtensionProtocolOptions = httpOptions(localIdleTimeout)
	c.LbConfig = &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &clusterv3.Cluster_OriginalDstLbConfig{
		UpstreamPortOverride: number(p.Number),
	}}
	return c
}

// inOnce is in while the pod is ending: a connection for each request. Peers that have not heard of the end still send some
// when the app ends, which may close an unused connection in the moment in which the next request is sent. One that can't
// have a connection has certainly not been read, and its sender is told so.
func inOnce(w *Workload, p Port) *clusterv3.Cluster {
	c := in(w, p)
	c.Name = inOnceCluster(p.Number)
	c.TypedExtensionProtocolOptions = httpOptions(localIdleTimeout, onceOnly)
	return c
}

// peerConn has the other revision's pods. Its endpoints have the cluster's own name: under delta xDS a
// cluster that is added later and shares a name already subscribed to gets no answer.
func peerConn(w *Workload, p Port) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                          peerConnCluster(p.Number, w.Split.Peer),
		AltStatName:                   w.statName(p.Number, HopPeerConn, w.Split.Peer),
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:              &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsConfig()},
		LbPolicy:                      clusterv3.Cluster_LEAST_REQUEST,
		ConnectTimeout:                duration(peerConnectTimeout),
		CircuitBreakers:               noBreakers(),
		OutlierDetection:              ejectUnreachable(),
		CommonLbConfig:                &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}},
		TypedExtensionProtocolOptions: httpOptions(peerIdleTimeout, unreachedIsAnError, soMany(peerRequests), askedForLife),
	}
}

// peer tries the other revision first and this pod's app second. Which of them answered is not in its
// own statistics, but in those of the two.
func peer(w *Workload, p Port) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:            peerCluster(p.Number, w.Split.Peer),
		AltStatName:     w.statName(p.Number, HopPeer, w.Split.Peer),
		LbPolicy:        clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:  duration(peerConnectTimeout),
		CircuitBreakers: noBreakers(),
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.clusters.composite",
			TypedConfig: packed(&compositev3.ClusterConfig{Clusters: []*compositev3.ClusterConfig_ClusterEntry{
				{Name: peerConnCluster(p.Number, w.Split.Peer)},
				{Name: localCluster(p.Number)},
			}}),
		}},
		// Whether an answer is an error for the outlier detection of a member is asked of the cluster that the route names.
		TypedExtensionProtocolOptions: httpOptions(peerIdleTimeout, unreachedIsAnError),
	}
}

// endpoints are the peers, one resource for each cluster that wants one, empty rather than absent: a
// cluster that waits for its endpoints answers 503.
func endpoints(w *Workload, p Port) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: peerConnCluster(p.Number, w.Split.Peer)}
	if len(w.Split.Endpoints) == 0 {
		return out
	}
	means := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		metadataKey: {Fields: map[string]*structpb.Value{
			"port": structpb.NewStringValue(strconv.Itoa(int(p.Peer))),
			"for":  structpb.NewStringValue(w.identity(w.Split.Peer)),
		}},
	}}
	l := &endpointv3.LocalityLbEndpoints{}
	for _, ip := range w.Split.Endpoints {
		l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: address(ip, PeerPort)},
		}, Metadata: means})
	}
	out.Endpoints = []*endpointv3.LocalityLbEndpoints{l}
	return out
}

// ejectUnreachable leaves out, for a while, peers that can't be connected to, so that not every request pays the connect
// timeout, and those that say that they are ending, before they have closed their doors. What the app answers never ejects:
// that is the analysis' business.
//
// To Envoy an answer that breaks off is a failure of the same kind as a connection that can't be made. But before it
// there was a connection, which is a success, so it takes a second with failures alone; five of them, because a few long
// answers may break off in a second in which nothing begins. Failures in a row, whatever their number, leave out a version
// that breaks off its answers to many clients at once: others' answers are counted as its own then.
func ejectUnreachable() *clusterv3.OutlierDetection {
	return &clusterv3.OutlierDetection{
		SplitExternalLocalOriginErrors:         true,
		EnforcingConsecutiveLocalOriginFailure: number(0),
		EnforcingLocalOriginSuccessRate:        number(0),

		EnforcingFailurePercentageLocalOrigin: number(100),
		FailurePercentageThreshold:            number(100),
		FailurePercentageMinimumHosts:         number(1),
		FailurePercentageRequestVolume:        number(5),

		Consecutive_5Xx:                    number(1),
		EnforcingConsecutive_5Xx:           number(100),
		EnforcingConsecutiveGatewayFailure: number(0),
		EnforcingSuccessRate:               number(0),

		Interval:           duration(time.Second),
		BaseEjectionTime:   duration(LeastEjection),
		MaxEjectionTime:    duration(10 * time.Second),
		MaxEjectionPercent: number(100),
	}
}

func noBreakers() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: number(unlimited), MaxPendingRequests: number(unlimited),
		MaxRequests: number(unlimited), MaxRetries: number(unlimited),
	}}}
}

// onceOnly makes a connection for each request.
func onceOnly(o *upstreamsv3.HttpProtocolOptions) { soMany(1)(o) }

// soMany makes another connection after n requests. The one before goes when its requests are answered.
func soMany(n uint32) func(*upstreamsv3.HttpProtocolOptions) {
	return func(o *upstreamsv3.HttpProtocolOptions) {
		o.CommonHttpProtocolOptions.MaxRequestsPerConnection = number(n)
	}
}

// askedForLife finds out that a peer is lost while its connections are open. Over HTTP/1 only a request can: the one that is
// under way, which then hangs, as natively.
func askedForLife(o *upstreamsv3.HttpProtocolOptions) {
	o.GetUseDownstreamProtocolConfig().Http2ProtocolOptions.ConnectionKeepalive = &corev3.KeepaliveSettings{
		Interval: duration(aliveInterval), Timeout: duration(aliveTimeout),
	}
}

// unreachedIsAnError, and nothing else is, to the outlier detection. (Without a matcher each status of 500 and more is. It is
// asked about no answer to what Envoy's router takes for gRPC, so the router takes nothing for that: see lateMutation.)
func unreachedIsAnError(o *upstreamsv3.HttpProtocolOptions) {
	o.OutlierDetection = &upstreamsv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: &matcherv3.MatchPredicate{
		Rule: &matcherv3.MatchPredicate_HttpResponseHeadersMatch{HttpResponseHeadersMatch: &matcherv3.HttpHeadersMatch{
			Headers: []*routev3.HeaderMatcher{isUnreached()},
		}},
	}}
}

// httpOptions speak upstream what the client spoke.
func httpOptions(idle time.Duration, change ...func(*upstreamsv3.HttpProtocolOptions)) map[string]*anypb.Any {
	http1 := http1()
	// Some apps answer with both Content-Length and chunked, which clients take. The sidecar sends it on with one of them. From clients
	// both stays refused: two servers that understand it differently are how requests are smuggled.
	http1.AllowChunkedLength = true
	o := &upstreamsv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout: duration(idle), MaxHeadersCount: number(maxHeaders), MaxResponseHeadersKb: number(maxHeadersKB),
		},
		UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamsv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  http1,
				Http2ProtocolOptions: http2(),
			},
		},
	}
	for _, c := range change {
		c(o)
	}
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(o)}
}
