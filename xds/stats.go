// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// statsConfig turns the clusters' alt_stat_name (see statName) into labels and keeps the series that
// somebody reads: about 30 per cluster, half of them histogram buckets, and hardly any of those of HopDirect.
func statsConfig() *metricsv3.StatsConfig {
	return &metricsv3.StatsConfig{
		UseAllDefaultTags: wrapperspb.Bool(false),
		StatsTags: []*metricsv3.TagSpecifier{
			tag("hg_namespace", `^cluster\.(hg\|([^|]+)\|)`),
			tag("hg_workload", `^cluster\.hg\|[^|]+\|(([^|]+)\|)`),
			tag("hg_port", `^cluster\.hg\|[^|]+\|[^|]+\|(([^|]+)\|)`),
			tag("hg_hop", `^cluster\.hg\|[^|]+\|[^|]+\|[^|]+\|(([^|]+)\|)`),
			tag("hg_revision", `^cluster\.hg\|[^|]+\|[^|]+\|[^|]+\|[^|]+\|(([^|.]+)\.)`),
			{TagName: "envoy.response_code"}, // built in
			{TagName: "envoy.response_code_class"},
			// Also of no status that exists, as an app writes it: -1.
			tag("grpc_status", `\.grpc\.((-?\d+))$`),
		},
		StatsMatcher: &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_InclusionList{
			InclusionList: &matcherv3.ListStringMatcher{Patterns: inclusions()},
		}},
		HistogramBucketSettings: []*metricsv3.HistogramBucketSettings{{
			Match: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: "upstream_rq_time"}},
			// Milliseconds. A quantile's error is the width of its bucket: up to 50 % here.
			Buckets: []float64{1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500, 10000, 30000},
		}},
	}
}

// inclusions leave out, among much else, the prefixes external. and internal., which would count every
// request twice.
func inclusions() []*matcherv3.StringMatcher {
	return []*matcherv3.StringMatcher{
		{MatchPattern: regex(`cluster\.hg\|[^|]*\|[^|]*\|[^|]*\|(in|local|peer|peerconn)\|[^|.]*\.` +
			`(upstream_rq_(101|[1-5]xx|time|timeout|retry|total)|upstream_cx_(connect_fail|total)|grpc\.-?[0-9]+)`)},
		// Answers that broke off: each is counted where the answer came from, in one of these.
		{MatchPattern: regex(`cluster\.hg\|[^|]*\|[^|]*\|[^|]*\|(local|peerconn)\|[^|.]*\.(upstream_rq_rx_reset|upstream_cx_protocol_error)`)},
		{MatchPattern: regex(`cluster\.hg\|[^|]*\|[^|]*\|[^|]*\|local\|[^|.]*\.upstream_rq_pending_failure_eject`)},
		// Whoever misses requests finds them. There are no counters of a class before its first answer.
		{MatchPattern: regex(`cluster\.hg\|[^|]*\|[^|]*\|[^|]*\|` + string(HopDirect) + `\|[^|.]*\.upstream_rq_[1-5]xx`)},
		exactly("control_plane.connected_state"),
		exactly("cluster_manager.warming_clusters"),
		exactly("cluster_manager.cds.update_rejected"),
		exactly("listener_manager.lds.update_rejected"),
		{MatchPattern: regex(`http\.(capture\|[0-9]+|peers)\.(rds\..*\.update_rejected|no_route|downstream_cx_active|` + BufferedStat + `)`)},
		{MatchPattern: regex(`tcp\..*\.` + BufferedStat)},
	}
}

func tag(name, expression string) *metricsv3.TagSpecifier {
	return &metricsv3.TagSpecifier{TagName: name, TagValue: &metricsv3.TagSpecifier_Regex{Regex: expression}}
}

func exactly(name string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}}
}
