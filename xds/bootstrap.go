// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	injectedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/injected_resource/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	adminCluster  = "headgate-admin"
	serverCluster = "headgate-xds"
)

// Node is what the bootstrap depends on. Envoy is always started by `headgate run`, which also stands
// between it and the server.
type Node struct {
	// ID names the pod in Envoy's logs, as namespace/name. The server does not believe it.
	ID string
	// Socket is the path of the unix socket on which `headgate run` serves delta ADS. A leading @ makes
	// it an abstract one.
	Socket string
	// Ended is the path of a file that says 0, and once another file is moved there that says 1, that clients' unused
	// connections be closed. Empty where there is nowhere to have it: then they stay open.
	Ended string
	// IPv6 lets the statistics be read on the pod's IPv6 address too. As in Workload.
	IPv6 bool
}

// drainTime is how long connections may go on when the filter chain that they came by is replaced, because a Service
// changed or another version of the control plane says it differently: after it Envoy cuts requests that are under way.
// What was replaced stays in memory for as long.
const drainTime = 24 * time.Hour

// hangsFor is for how long a thread of Envoy's must have done nothing to be taken for hanging. A pod that is starved of
// CPU, or a machine that stood still for some seconds, is not.
const hangsFor = time.Minute

// Flags are those of Envoy's command line that the configuration counts on. With the immediate strategy a graceful drain
// tells clients at once, however long drainTime is.
func Flags() []string {
	return []string{"--disable-hot-restart", "--drain-time-s", strconv.Itoa(int(drainTime.Seconds())), "--drain-strategy", "immediate"}
}

// Bootstrap is Envoy's static configuration as JSON, indented, deterministic. It holds what never
// changes during the life of a pod: where configuration comes from, the admin interface (loopback only),
// readiness and statistics. It fails when a field of n is missing.
//
// It limits nothing (no connection limit, and an overload manager only for the pod's end): a sidecar that refuses what its app
// would have taken is worse than one that shares the pod's fate.
func Bootstrap(n Node) ([]byte, error) {
	if n.ID == "" || n.Socket == "" {
		return nil, errors.New("making bootstrap: node ID and socket must not be empty")
	}
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: n.ID, Cluster: "headgate"},
		Admin: &bootstrapv3.Admin{
			Address: address("127.0.0.1", AdminPort), IgnoreGlobalConnLimit: true, ProfilePath: "/dev/null",
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: adsSource(), CdsConfig: adsConfig(), LdsConfig: adsConfig(),
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: []*listenerv3.Listener{statsListener(n.IPv6)},
			Clusters:  []*clusterv3.Cluster{admin(), server(n.Socket)},
		},
		LayeredRuntime: runtime(),
		// A readiness probe would see a hang too, but only take the pod out; and where the kubelet starts anew, it takes out every pod
		// of its node until it has asked once (as it did with apps' before KEP-4781).
		Watchdogs:       &bootstrapv3.Watchdogs{MainThreadWatchdog: watchdog(), WorkerWatchdog: watchdog()},
		OverloadManager: hangUpOnce(n.Ended),
		StatsConfig:     statsConfig(),
		// Histograms are merged at this interval; it is how old a scraped latency may be.
		StatsFlushInterval: duration(time.Second),
	}
	return indented(b)
}

// runtime leaves out Envoy's guard against clients that reset streams quickly, and takes LeavingKey and EndedKey from the admin
// interface.
//
// The guard cuts an HTTP/2 connection of which half of the first 500 streams, or of all later ones, were reset within a second.
// On the way to a peer the calls of all clients share one: clients that give up early would cost others their calls, and
// only the peer's version would be blamed. A client that hedges would lose its connection as well, which the app would leave
// to it. So the count from which Envoy looks is as high as it goes. What the guard is for (CVE-2023-44487) is to keep a
// client from making work that it doesn't wait for; without it the app's own HTTP/2 server has to, as without a sidecar. Who
// floods a pod spends the CPU of its sidecar as well: its own limit, if it has one, and nobody else's.
func runtime() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
		{Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			"overload.premature_reset_total_stream_count": structpb.NewNumberValue(math.MaxUint32),
		}}}},
		{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}},
	}}
}

// hangUpOnce closes clients' connections as soon as they are unused, once the file says 1. Envoy's only way to close
// connections that nothing happens on is a time-out, and the only one that can change is the overload manager's.
func hangUpOnce(file string) *overloadv3.OverloadManager {
	if file == "" {
		return nil
	}
	const monitor = "envoy.resource_monitors.injected_resource"
	return &overloadv3.OverloadManager{
		RefreshInterval: duration(100 * time.Millisecond),
		ResourceMonitors: []*overloadv3.ResourceMonitor{{Name: monitor, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{
			TypedConfig: packed(&injectedv3.InjectedResourceConfig{Filename: file}),
		}}},
		Actions: []*overloadv3.OverloadAction{{
			Name: "envoy.overload_actions.reduce_timeouts",
			Triggers: []*overloadv3.Trigger{{
				Name: monitor, TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: 1}},
			}},
			TypedConfig: packed(&overloadv3.ScaleTimersOverloadActionConfig{
				TimerScaleFactors: []*overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer{{
					Timer:          overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_CONNECTION_IDLE,
					OverloadAdjust: &overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer_MinTimeout{MinTimeout: duration(0)},
				}},
			}),
		}},
	}
}

// watchdog ends an Envoy of which a thread hangs, so that the container is started again.
func watchdog() *bootstrapv3.Watchdog { return &bootstrapv3.Watchdog{KillTimeout: duration(hangsFor)} }

func indented(b *bootstrapv3.Bootstrap) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("making bootstrap: %w", err)
	}
	var out bytes.Buffer // protojson varies its white space on purpose
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("making bootstrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// adsSource reconnects fast: the other end is in the same container.
func adsSource() *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion:       corev3.ApiVersion_V3,
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: serverCluster,
				RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: duration(100 * time.Millisecond), MaxInterval: duration(time.Second),
				}},
			},
		}}},
	}
}

func server(socket string) *clusterv3.Cluster {
	c := static(serverCluster, &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: socket}}})
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(&upstreamsv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{
				ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
						Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
					},
				},
			},
		}),
	}
	return c
}

func admin() *clusterv3.Cluster { return static(adminCluster, address("127.0.0.1", AdminPort)) }

func static(name string, a *corev3.Address) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       duration(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}},
			}}}},
		},
	}
}

// statsListener lets two paths of the admin interface out of the pod, and nothing else.
func statsListener(ipv6 bool) *listenerv3.Listener {
	var routes []*routev3.Route
	for _, path := range []string{"/ready", "/stats/prometheus"} {
		routes = append(routes, &routev3.Route{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}},
			Action: forward(&routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: adminCluster}, Timeout: duration(10 * time.Second),
			}),
		})
	}
	l := &listenerv3.Listener{
		Name: "stats", StatPrefix: "stats", Address: address("0.0.0.0", StatsPort), IgnoreGlobalConnLimit: true,
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			filter("envoy.filters.network.http_connection_manager", &hcmv3.HttpConnectionManager{
				StatPrefix: "stats",
				// None, so that hangUpOnce does not concern them: what was counted last is still read.
				CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: duration(0)},
				RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
					Name:         "stats",
					VirtualHosts: []*routev3.VirtualHost{{Name: "stats", Domains: []string{"*"}, Routes: routes}},
				}},
				HttpFilters: []*hcmv3.HttpFilter{httpFilter("envoy.filters.http.router", &routerv3.Router{})},
			}),
		}}},
	}
	if ipv6 {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address("::", StatsPort)}}
	}
	return l
}
