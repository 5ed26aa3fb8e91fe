// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	headertometadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	upstreamcodecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// hostlessHost is the Host of HTTP/1.0 requests that have none (HAProxy's health checks among them);
// Envoy needs one. It is an address literal, so they go to the local app, and one that nobody trusts.
const hostlessHost = "0.0.0.0"

// grpcContentType matches every content-type, and only one of gRPC has a first group. (One of gRPC-Web has, too, and takes
// no harm.)
const grpcContentType = `(?i)^(?:(application/grpc.*)|.*)$`

// otherUpgrades matches the values of Upgrade that are ignored, as a server may: all but websocket,
// SPDY and tcp, which pass. (RE2 has no negation: each alternative leaves a known prefix.)
const otherUpgrades = `(?i)([^wst]|w[^e]|we[^b]|s[^p]|sp[^d]|t[^c]|tc[^p]).*`

// silence is no limit in practice: the app's own holds. With none at all, a pod that has ended could not cut it short
// (hangUpOnce).
const silence = 365 * 24 * time.Hour

// lastRequest is how long requests are taken on a connection that is told to close, when it has been unused (HTTP/1) or is
// HTTP/2: those that were on their way. A client far away needs so long to be told. Once the app has ended they are answered 503.
const lastRequest = 250 * time.Millisecond

// obeyedHeaders are commands to Envoy's router. A client's sidecar or gateway may have left them; obeyed,
// they would set timeouts, or send a request twice that the app has read already.
func obeyedHeaders() []string {
	return []string{
		"x-envoy-hedge-on-per-try-timeout", "x-envoy-max-retries", "x-envoy-retriable-header-names",
		"x-envoy-retriable-status-codes", "x-envoy-retry-grpc-on", "x-envoy-retry-on",
		"x-envoy-upstream-alt-stat-name", "x-envoy-upstream-rq-per-try-timeout-ms",
		"x-envoy-upstream-rq-timeout-alt-response", "x-envoy-upstream-rq-timeout-ms",
	}
}

// origin is where a manager's requests come from.
type origin struct {
	statPrefix, routes string
	// stripped are headers that may not come from there.
	stripped []string
	// silence is for how long a connection may be unused; 0: without a limit.
	silence time.Duration
	// replies are what Envoy answers itself; nil: its own words.
	replies *hcmv3.LocalReplyConfig
}

func fromClients(port uint32) origin {
	return origin{statPrefix: captureRoutes(port), routes: captureRoutes(port), stripped: []string{PortHeader, forHeader, handedOnHeader}, silence: silence}
}

func fromPeers() origin {
	return origin{statPrefix: "peers", routes: peerRoutes, replies: unreached()}
}

// unreached says so when the app of a pod that is ending can't be connected to. Its sidecar outlives it, and a
// peer that has not heard of the end, because it has lost the control plane, goes on sending. An app that can't be
// connected to in the middle of its life is another matter: that is for the analysis to see.
//
// It says so, too, when what it hands on finds no pod of stable: the sender is one.
func unreached() *hcmv3.LocalReplyConfig {
	leaving := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{
		RuntimeFilter: &accesslogv3.RuntimeFilter{RuntimeKey: LeavingKey, UseIndependentRandomness: true},
	}}
	handedOn := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: present(PortHeader)},
	}}
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
		sayingUnreached(answeredFor("UF"), leaving), sayingUnreached(answeredFor("UF", "UH"), handedOn),
	}}
}

// answeredFor matches by why Envoy answers itself: UF is a failed connection, UH that there is nobody to connect to.
func answeredFor(flags ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
	}}
}

func sayingUnreached(all ...*accesslogv3.AccessLogFilter) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter:       &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: all}}},
		HeadersToAdd: []*corev3.HeaderValueOption{saysUnreached()},
	}
}

func saysUnreached() *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: unreachedHeader, Value: "true"}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// httpManager is an HTTP connection manager that changes as little as Envoy lets it.
func httpManager(from origin) *listenerv3.Filter {
	return filter("envoy.filters.network.http_connection_manager", &hcmv3.HttpConnectionManager{
		StatPrefix: from.statPrefix,
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{
			Rds: &hcmv3.Rds{ConfigSource: adsConfig(), RouteConfigName: from.routes},
		},
		LocalReplyConfig: from.replies,
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{
			{UpgradeType: "websocket"}, {UpgradeType: "SPDY/3.1"}, {UpgradeType: "tcp"},
		},
		HttpProtocolOptions:       http1(),
		Http2ProtocolOptions:      http2(),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: duration(from.silence), MaxHeadersCount: number(maxHeaders)},
		MaxRequestHeadersKb:       number(maxHeadersKB),
		// The app's own limits hold; the sidecar sets none.
		StreamIdleTimeout: duration(0),
		RequestTimeout:    duration(0),
		DrainTimeout:      duration(lastRequest),

		ServerHeaderTransformation:    hcmv3.HttpConnectionManager_PASS_THROUGH,
		UseRemoteAddress:              wrapperspb.Bool(false),
		SkipXffAppend:                 true,
		GenerateRequestId:             wrapperspb.Bool(false),
		PreserveExternalRequestId:     true,
		Proxy_100Continue:             true,
		NormalizePath:                 wrapperspb.Bool(false),
		PathWithEscapedSlashesAction:  hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{earlyMutation(from.stripped)},
		HttpFilters: []*hcmv3.HttpFilter{
			httpFilter("envoy.filters.http.grpc_stats", &grpcstatsv3.FilterConfig{
				PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{StatsForAllMethods: wrapperspb.Bool(false)},
			}),
			httpFilter("envoy.filters.http.header_to_metadata", knownGRPC()),
			httpFilter("envoy.filters.http.header_mutation", lateMutation()),
			httpFilter("envoy.filters.http.router", router()),
		},
	})
}

// earlyMutation runs before Envoy looks at the request. It puts the client's x-forwarded-proto where
// Envoy does not overwrite it, nor stumbles on an empty one (404).
func earlyMutation(stripped []string) *corev3.TypedExtensionConfig {
	m := &earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{
		removeHeader(forwardedProtoHeader),
		appendHeader(forwardedProtoHeader, "%REQ(x-forwarded-proto)%"),
		removeHeader("x-forwarded-proto"),
	}}
	for _, h := range append(obeyedHeaders(), stripped...) {
		m.Mutations = append(m.Mutations, removeHeader(h))
	}
	return &corev3.TypedExtensionConfig{
		Name: "envoy.http.early_header_mutation.header_mutation", TypedConfig: packed(m),
	}
}

// knownGRPC notes the content-type of a gRPC call, and nothing of another request.
func knownGRPC() *headertometadatav3.Config {
	return &headertometadatav3.Config{RequestRules: []*headertometadatav3.Config_Rule{{
		Header: "content-type",
		OnHeaderPresent: &headertometadatav3.Config_KeyValuePair{
			MetadataNamespace: metadataKey, Key: "grpc",
			RegexValueRewrite: &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: grpcContentType}, Substitution: `\1`},
		},
	}}}
}

// lateMutation runs when all but the router have seen the request. It undoes Envoy's x-forwarded-proto: the client's own
// value again, or none.
//
// And it hides gRPC from the router. That would tell the outlier detection the status of a call whose answer has no message,
// most errors among them, or else the answer's status of HTTP, without a question to the cluster's matcher
// (unreachedIsAnError): a candidate was left out at its first error, stable answered in its place, and these answers were
// counted as the candidate's.
func lateMutation() *headermutationv3.HeaderMutation {
	return &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationv3.HeaderMutation{
			removeHeader("x-forwarded-proto"),
			appendHeader("x-forwarded-proto", "%REQ("+forwardedProtoHeader+")%"),
			removeHeader(forwardedProtoHeader),
			removeHeader(contentTypeHeader),
			appendHeader(contentTypeHeader, "%DYNAMIC_METADATA("+metadataKey+":grpc)%"),
			overwriteHeader("content-type", "%REQ("+contentTypeHeader+"):11%"), // "application"
		},
	}}
}

// router names the peer and its port in the attempts that go to a peer, and only in those: the address of a peer
// carries them as metadata, the local app's has none, and an empty value is not added. A gRPC call gets its content-type
// back, in its first attempt.
func router() *routerv3.Router {
	m := &headermutationv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
		removeHeader(PortHeader), removeHeader(forHeader), // of the attempt before
		appendHeader(PortHeader, "%UPSTREAM_METADATA("+metadataKey+":port)%"),
		appendHeader(forHeader, "%UPSTREAM_METADATA("+metadataKey+":for)%"),
		overwriteHeader("content-type", "%REQ("+contentTypeHeader+")%"),
		removeHeader(contentTypeHeader),
	}}
	return &routerv3.Router{
		SuppressEnvoyHeaders: true,
		UpstreamHttpFilters: []*hcmv3.HttpFilter{
			httpFilter("envoy.filters.http.header_mutation", &headermutationv3.HeaderMutation{Mutations: m}),
			httpFilter("envoy.filters.http.upstream_codec", &upstreamcodecv3.UpstreamCodec{}),
		},
	}
}

func removeHeader(name string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}}
}

// appendHeader adds nothing when the value turns out empty.
func appendHeader(name, value string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
		Append: &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}},
	}}
}

// overwriteHeader does nothing where there is no such header, or the value turns out empty.
func overwriteHeader(name, value string) *mutationv3.HeaderMutation {
	m := appendHeader(name, value)
	m.GetAppend().AppendAction = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
	return m
}

// http1 keeps header names as they were written, reason phrases, trailers, HTTP/1.0 and methods that Envoy does not
// know. For the last one Envoy writes a warning ("work-in-progress") for each place where it is said.
func http1() *corev3.Http1ProtocolOptions {
	return &corev3.Http1ProtocolOptions{
		AcceptHttp_10:         true,
		DefaultHostForHttp_10: hostlessHost,
		AllowAbsoluteUrl:      wrapperspb.Bool(true),
		EnableTrailers:        true,
		AllowCustomMethods:    true,
		IgnoreHttp_11Upgrade:  []*matcherv3.StringMatcher{{MatchPattern: regex(otherUpgrades)}},
		HeaderKeyFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat{
			HeaderFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat_StatefulFormatter{
				StatefulFormatter: &corev3.TypedExtensionConfig{
					Name:        "envoy.http.stateful_header_formatters.preserve_case",
					TypedConfig: packed(&preservecasev3.PreserveCaseFormatterConfig{ForwardReasonPhrase: true}),
				},
			},
		},
	}
}

// The requests of many clients share a connection, to the app and to each peer, where natively each client has his own. (One for each
// client's is what Envoy could do, connection_pool_per_downstream_connection. But then each new connection of a client takes
// one of the pod's 28,232 local ports for a minute, TIME_WAIT: from 470 a second on requests fail.) So what is
// not read by one of them must not use up what the connection may have under way (RFC 9113 §5.2): the window is each stream's,
// and all the connection's is as large as the protocol lets it be.
const (
	streamWindow     = 1 << 20
	connectionWindow = 1<<31 - 1
)

// http2 allows extended CONNECT (websockets over HTTP/2). What is wrong with one answer ends that stream, not the connection with
// the requests of others.
func http2() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		AllowConnect:                            true,
		InitialStreamWindowSize:                 number(streamWindow),
		InitialConnectionWindowSize:             number(connectionWindow),
		OverrideStreamErrorOnInvalidHttpMessage: wrapperspb.Bool(true),
	}
}

func regex(expression string) *matcherv3.StringMatcher_SafeRegex {
	return &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}}
}

func httpFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(m)}}
}

func filter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(m)}}
}
