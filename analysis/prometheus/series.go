// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
)

// Names of the series and labels that sidecars expose.
const (
	requestsName = "envoy_cluster_upstream_rq_xx"
	statusName   = "envoy_cluster_upstream_rq" // of one status, 101
	grpcName     = "envoy_cluster_grpc"
	connectName  = "envoy_cluster_upstream_cx_connect_fail"
	startedName  = "envoy_cluster_upstream_rq_total"
	resetName    = "envoy_cluster_upstream_rq_rx_reset"              // streams of HTTP/2 that the other end has reset
	brokenName   = "envoy_cluster_upstream_cx_protocol_error"        // connections of HTTP/1 that ended in the middle of an answer
	lostName     = "envoy_cluster_upstream_rq_pending_failure_eject" // streams of HTTP/2 whose connection ended, or was not to be had
	latencyName  = "envoy_cluster_upstream_rq_time_bucket"
	nativeName   = "envoy_cluster_upstream_rq_time" // the same histogram as a single series

	labelNamespace = "hg_namespace"
	labelWorkload  = "hg_workload"
	labelPort      = "hg_port"
	labelHop       = "hg_hop"
	labelRevision  = "hg_revision"
	labelClass     = "envoy_response_code_class"
	labelCode      = "envoy_response_code"
	labelStatus    = "grpc_status"
	labelBound     = "le" // milliseconds
	// The scrape adds these two. They can't be forged by a pod, unlike all labels above.
	labelPodNamespace = "namespace"
	labelPod          = "pod"

	hopLocal    = "local"    // answered by this pod's own app
	hopPeer     = "peer"     // meant for the other revision, also where the app answered in the end
	hopPeerConn = "peerconn" // connections to the other revision's pods
	hopIn       = "in"       // came from a peer, answered by this pod's own app
)

// switchingProtocols is the status of an upgrade that was accepted (RFC 9110 §15.2.2).
const switchingProtocols = "101"

// all is the bound that every request is within.
const all = "+Inf"

// Requests and errors are counted by the series of these names, for these hops.
var (
	countedNames = []string{requestsName, statusName, grpcName, connectName, startedName, resetName, brokenName, lostName}
	countedHops  = []string{hopLocal, hopPeer, hopPeerConn}
)

// latencyBounds are the bounds of the sidecars' histograms that are asked for, in seconds. Not all: each is
// a series per pod. None below 10 ms: there it is the machine that differs between pods, not the version.
func latencyBounds() []float64 {
	return []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5}
}

// boundLabel is a bound as sidecars write it.
func boundLabel(seconds float64) string {
	return strconv.FormatFloat(seconds*1000, 'f', -1, 64)
}

// boundPattern is a quoted regular expression for the bounds that are asked for. A Prometheus from version 3
// on stores the bound 10 as 10.0, whatever the sidecar wrote.
func boundPattern() string {
	words := []string{regexp.QuoteMeta(all)}
	for _, b := range latencyBounds() {
		words = append(words, boundLabel(b)+`(\.0)?`)
	}
	return strconv.Quote(strings.Join(words, "|"))
}

// workload is a key for what belongs to a workload as a whole.
type workload struct {
	Namespace, Workload string
}

// source is a sidecar.
type source struct {
	workload
	Pod string
}

// series is one counter of one sidecar. Other labels (job, instance, the replica of a Prometheus pair)
// don't tell counters apart: a pod that is scraped twice is counted once.
type series struct {
	source
	Name     string
	Hop      string
	Port     string
	Revision string // pod-template-hash of the revision that the requests were meant for
	Code     string // class of the response code, the code, gRPC status or bound of the latency; empty for connections
}

// sample is the value of a counter at one look.
type sample struct {
	series
	Value float64
}

// expression selects the counters of the workloads, and beside them, in the same answer, the time of
// each workload's newest scrape (the only elements without a pod): counters that nobody scrapes any
// more keep their last value for five minutes and would look like a service without traffic.
func expression(targets []Target) string {
	labels := labelHop + "=~" + oneOf(countedHops...) + of(targets)
	counters := "{__name__=~" + oneOf(countedNames...) + "," + labels + "}"
	// timestamp() drops the name, so it must not see two names at once. Every cluster has the counter of
	// failed connections from the start.
	rest := "max by(" + labelNamespace + "," + labelWorkload + ") (" +
		"timestamp(" + requestsName + "{" + labels + "}) or timestamp(" + connectName + "{" + labels + "}))"
	if timed := slices.DeleteFunc(slices.Clone(targets), func(t Target) bool { return t.NoLatency }); len(timed) > 0 {
		// A request is timed where it is answered, whichever way it came.
		answered := labelHop + "=~" + oneOf(hopIn, hopLocal) + of(timed)
		counters += " or " + latencyName + "{" + labelBound + "=~" + boundPattern() + "," + answered + "}"
		// The label is for "or", which ignores names: without it a histogram would be taken for startedName. The parentheses
		// are for its price, which is that of what is left of it: there is little here unless histograms are native.
		rest = "(label_replace(" + nativeName + "{" + answered + "}," + strconv.Quote(labelBound) + `,"native","","") or ` + rest + ")"
	}
	return counters + " or " + rest
}

// of are the labels, after others, that select what sidecars of the targets expose.
func of(targets []Target) string {
	var namespaces, workloads []string
	for _, t := range targets {
		namespaces = append(namespaces, t.Namespace)
		workloads = append(workloads, t.Workload)
	}
	return "," + labelNamespace + "=~" + oneOf(namespaces...) +
		// A stranger's series, however many, must not even be read.
		"," + labelPodNamespace + "=~" + oneOf(namespaces...) +
		"," + labelWorkload + "=~" + oneOf(workloads...)
}

// oneOf is a quoted regular expression for any of the words.
func oneOf(words ...string) string {
	words = slices.Compact(slices.Sorted(slices.Values(words)))
	for i, w := range words {
		words[i] = regexp.QuoteMeta(w)
	}
	return strconv.Quote(strings.Join(words, "|"))
}

// answer is what the query for counters returned.
type answer struct {
	samples []sample
	// age is how long before the look each workload was scraped last, in seconds.
	age map[workload]float64
}

// parse sorts the elements of an answer. What does not follow the contract is left out.
func parse(v model.Vector) answer {
	a := answer{age: make(map[workload]float64)}
	native := newUnfolder()
	for _, e := range v {
		if e.Metric[model.MetricNameLabel] == "" && e.Metric[labelPod] == "" {
			key := workload{string(e.Metric[labelNamespace]), string(e.Metric[labelWorkload])}
			a.age[key] = float64(e.Timestamp)/1000 - float64(e.Value)
			continue
		}
		s, ok := seriesOf(e.Metric)
		switch {
		case !ok:
		case e.Histogram != nil:
			a.samples = native.unfold(a.samples, s, e.Histogram)
		default:
			a.samples = append(a.samples, sample{series: s, Value: float64(e.Value)})
		}
	}
	return a
}

func seriesOf(m model.Metric) (series, bool) {
	label := func(name model.LabelName) string { return string(m[name]) }
	s := series{
		source:   source{workload: workload{label(labelNamespace), label(labelWorkload)}, Pod: label(labelPod)},
		Name:     label(model.MetricNameLabel),
		Hop:      label(labelHop),
		Port:     label(labelPort),
		Revision: label(labelRevision),
	}
	switch s.Name {
	case requestsName:
		s.Code = label(labelClass)
	case statusName:
		s.Code = label(labelCode)
	case grpcName:
		s.Code = label(labelStatus)
	case latencyName:
		s.Code = strings.TrimSuffix(label(labelBound), ".0") // see boundPattern
	}
	// A pod of another namespace that claims to belong to this workload is a stranger.
	ok := s.Pod != "" && s.Namespace == label(labelPodNamespace)
	return s, ok
}

// counted says that requests and errors are counted by this series.
func (s series) counted() bool {
	return slices.Contains(countedNames, s.Name) && slices.Contains(countedHops, s.Hop)
}

// counts says what one more of a series means.
func (s series) counts() (requests, errors bool) {
	split := s.Hop == hopLocal || s.Hop == hopPeer
	switch {
	case s.Name == requestsName && split:
		return slices.Contains([]string{"2", "3", "4", "5"}, s.Code), s.Code == "5"
	case s.Name == statusName && split:
		// An upgrade (WebSocket) was accepted. The others of its class come before another status of the same request.
		return s.Code == switchingProtocols, false
	case s.Name == grpcName && split:
		// The same request is in a class too, as a 2xx.
		return false, grpcFailure(s.Code)
	}
	return false, false
}

// started says that one more of a series is a request that reached a pod of the revision from another pod. The composite
// cluster's own (hop peer) counts attempts, wherever they went, and a pod's own app (hop local) also gets connections of other
// protocols, which are counted there as requests are.
func (s series) started() bool { return s.Name == startedName && s.Hop == hopPeerConn }

// unreached says that one more of a series is a connection to another pod that failed. The app of the pod that split
// answered instead: its request is in a class, too.
func (s series) unreached() bool { return s.Name == connectName && s.Hop == hopPeerConn }

// brokeOff says that one more of a series is an answer that broke off; if that was before its headers, the sidecar has answered
// instead, and it is in class 5, too. What the client breaks off is in none of these, nor is a stream that the other end resets
// after a whole answer, because it does not want the rest of the request. A connection that is lost is counted at the own app only:
// where a peer is asked, it is lost between that and its app, and then the peer's sidecar resets the stream. (Lost on the way there are
// also those that could not be had, which the own app then answered.)
func (s series) brokeOff() bool {
	switch s.Name {
	case resetName, brokenName:
		return s.Hop == hopLocal || s.Hop == hopPeerConn
	case lostName:
		return s.Hop == hopLocal
	}
	return false
}

// grpcFailure says that a gRPC status is the server's fault: one that Envoy maps to an HTTP code of 500
// or above (grpcToHttpStatus in source/common/grpc/status.cc), which is what its own load reports count
// as errors. Those are Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss and
// every number that is no status, as an app wrote it. Of what is no number the sidecars keep no counter: Envoy has its own
// among such names (success, total).
func grpcFailure(status string) bool {
	n, err := strconv.Atoi(status)
	if err != nil {
		return errors.Is(err, strconv.ErrRange)
	}
	switch n {
	case 2, 4, 12, 13, 14, 15:
		return true
	}
	return n < 0 || n > 16
}

// grpcUnavailable is the status of what a sidecar answers itself.
const grpcUnavailable = "14"

// usable says that v can be the value of a counter.
func usable(v float64) bool {
	return v >= 0 && !math.IsInf(v, 0) && !math.IsNaN(v)
}
