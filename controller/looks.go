// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/rollout"
)

// LookInterval is how often it is looked: as often as sidecars are scraped.
const LookInterval = policy.LookInterval

// What the record takes (the limits of the API's fields). A status that is refused would keep the weight
// from falling, so what is longer is cut or left out here; a Prometheus' error may have any length.
const (
	maxMessage    = 1024
	maxJudgeState = 49152
	// maxAddress is how much of a Prometheus' address goes into a reason, of which the judge keeps 120 bytes: so that there
	// is room for why it does not answer.
	maxAddress = 70
)

// Endpoint is a Prometheus. The zero value is none.
type Endpoint struct {
	// URL is its address.
	URL string
	// Secret has what it asks for; the zero value: nothing.
	Secret types.NamespacedName
}

// Counters asks one Prometheus; *prometheus.Client does.
type Counters interface {
	// Looks asks for all targets in one batch. The result has one look for each, in their order; the error says
	// why data is missing, for the log.
	Looks(ctx context.Context, at time.Time, targets []prometheus.Target) ([]analysis.Look, error)
	// Past makes the looks that would have been made at a target, the oldest first.
	Past(ctx context.Context, target prometheus.Target, span prometheus.Span) ([]analysis.Look, error)
}

// Looks runs the analysis of all rollouts: every LookInterval one batch of queries, one look at each,
// one wake-up. It runs on the leader and is the only one that owns the judges' states. Who waits for
// whom is in lanes.go.
type Looks struct {
	// Client reads Rollouts from the cache.
	Client client.Reader
	// Prometheus is the one for policies that name none; the zero value: they have no data.
	Prometheus Endpoint
	// Connect makes the client for an endpoint, once for each and namespace that names it. It is called by
	// several goroutines at once.
	Connect func(Endpoint) (Counters, error)
	// FastLane reads the requests and errors without a Prometheus; nil: there is no fast lane, see fastlane.go.
	FastLane FastLane
	// Wake is told each workload that has a new verdict, from several goroutines at once. It must not block.
	Wake func(types.NamespacedName)

	mu     sync.Mutex
	judged judgements
	fast   judgements
	since  time.Time // nobody else was leader and looked after that; zero: not known
	last   time.Time // of the looks, whether or not there was anything to look at
	looks  map[looksBy]int
	lanes  map[string]*lane
	named  chan struct{} // has a place for each named address that may be asked at once
	onFast atomic.Bool   // the fast lane is busy
}

// judged is what the analysis knows of one rollout.
type judged struct {
	candidate string
	began     *metav1.MicroTime // a retry is another rollout of the same candidate
	step      int32
	state     analysis.State
	verdict   v1alpha1.Verdict
	looked    time.Time
	evidence  analysis.Evidence // the verdict's, as numbers
	// before is the judge by Prometheus', as the time before the rollout left it; the fast lane begins with that.
	before analysis.State
	// careful is the fast lane's, which knows too little of that time.
	careful bool
}

// server is one Prometheus: its client, its address, and, without a client, why there is none.
type server struct {
	client  Counters
	url     string
	missing string
}

// batch judges the rollouts that ask the same Prometheus. Without a client everything is missing.
func (l *Looks) batch(ctx context.Context, now time.Time, prom server, rollouts []*v1alpha1.Rollout) error {
	var targets []prometheus.Target
	for _, r := range rollouts {
		targets = append(targets, l.target(ctx, r))
	}
	looks := make([]analysis.Look, len(targets))
	for i, t := range targets {
		looks[i] = t.MissingLook(now, cmp.Or(prom.missing, "no Prometheus is configured"))
	}
	var err error
	if prom.client != nil {
		past := l.recall(ctx, now, prom.client, rollouts, targets)
		looks, err = prom.client.Looks(ctx, now, targets)
		err = errors.Join(past, err)
	}
	for i, r := range rollouts {
		if why, silent := strings.CutPrefix(looks[i].Reason, prometheus.ReasonNoAnswer); silent && looks[i].Missing {
			looks[i].Reason = "no answer from Prometheus at " + shorten(prometheus.Shown(prom.url), maxAddress) + why
		}
		if !json.Valid([]byte(r.Status.Policy)) { // who knows what was to be judged
			looks[i] = targets[i].MissingLook(now, "the policy that this rollout began with is not in its record")
		}
		key := types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
		l.judge(key, &r.Status, looks[i])
		l.Wake(key)
	}
	return err
}

// judgeable says whether a rollout is to be looked at: it has both arms, and its end is not decided.
func judgeable(s *v1alpha1.RolloutStatus) bool {
	return s.Phase.UnderWay() && s.Candidate.Hash != "" && s.Stable.Hash != ""
}

// target is what Prometheus is asked about a rollout.
func (l *Looks) target(ctx context.Context, r *v1alpha1.Rollout) prometheus.Target {
	s := &r.Status
	t := prometheus.Target{
		Namespace: r.Namespace, Workload: r.Name, Candidate: s.Candidate.Hash, Stable: s.Stable.Hash,
		Step: int(rollout.StepInForce(s)), Weight: int(s.WeightInForce), Paused: s.Phase == v1alpha1.PhasePaused, Created: map[string]time.Time{}, Sidecars: map[string]string{},
	}
	if s.StepSince != nil {
		t.Since = s.StepSince.Time
	}
	judged := &recordedPolicy(s).Analysis
	t.NoLatency = judged.Latency.Disabled
	for i := range judged.Metrics {
		t.Metrics = append(t.Metrics, policy.Query(&judged.Metrics[i]))
	}
	for _, hash := range []string{s.Stable.Hash, s.Candidate.Hash} {
		var pods corev1.PodList
		// Without the creation times only the first requests of new pods go uncounted.
		_ = l.Client.List(ctx, &pods, client.InNamespace(r.Namespace), client.MatchingLabels{appsv1.DefaultDeploymentUniqueLabelKey: hash})
		for i := range pods.Items {
			pod := &pods.Items[i]
			t.Created[pod.Name] = pod.CreationTimestamp.Time
			if hash == s.Candidate.Hash && servesPeers(pod) {
				t.CandidatePods++
			}
			if address := StatsAddress(pod); address != "" {
				t.Sidecars[pod.Name] = address
			}
		}
	}
	return t
}

// endpoint is the Prometheus that a rollout is judged by.
func (l *Looks) endpoint(r *v1alpha1.Rollout) Endpoint {
	return endpointOf(recordedPolicy(&r.Status), l.Prometheus, r.Namespace)
}

// endpointOf is the Prometheus that a policy's queries go to. Its Secret is always of the namespace that the queries are about: a
// policy can't name another's. Who names the installation's own address, and nothing besides, means what naming none means.
func endpointOf(policy *v1alpha1.RolloutPolicySpec, own Endpoint, namespace string) Endpoint {
	p := policy.Analysis.Prometheus
	switch {
	case p == nil, p.SecretRef == nil && p.URL == own.URL:
		return own
	case p.SecretRef == nil:
		return Endpoint{URL: p.URL}
	}
	return Endpoint{URL: p.URL, Secret: types.NamespacedName{Namespace: namespace, Name: p.SecretRef.Name}}
}

// recordedPolicy is the policy that the rollout began with; the zero value where it can't be read.
func recordedPolicy(s *v1alpha1.RolloutStatus) *v1alpha1.RolloutPolicySpec {
	var policy v1alpha1.RolloutPolicySpec
	if err := json.Unmarshal([]byte(s.Policy), &policy); err != nil {
		return &v1alpha1.RolloutPolicySpec{}
	}
	return &policy
}

// judgements are by workload; nil has none.
type judgements map[types.NamespacedName]judged

// known is what is known of this very rollout; the zero value where that is nothing.
func (j judgements) known(key types.NamespacedName, s *v1alpha1.RolloutStatus) (judged, bool) {
	known, ok := j[key]
	if !ok || s.Candidate.Hash == "" || known.candidate != s.Candidate.Hash || !known.began.Equal(s.StartedAt) {
		return judged{}, false
	}
	return known, true
}

// put keeps what is known now.
func (j *judgements) put(key types.NamespacedName, known judged) {
	if *j == nil {
		*j = judgements{}
	}
	(*j)[key] = known
}

// begun is what is known of a rollout of which nothing was judged yet.
func begun(s *v1alpha1.RolloutStatus, state analysis.State) judged {
	return judged{candidate: s.Candidate.Hash, began: s.StartedAt.DeepCopy(), state: state}
}

// after takes in looks, at least one, the oldest first.
func (j judged) after(s *v1alpha1.RolloutStatus, by analysis.Settings, looks ...analysis.Look) judged {
	var verdict analysis.Verdict
	for _, look := range looks {
		j.state, verdict = analysis.Judge(by, j.state, look)
		j.looked = look.Time
	}
	j.step, j.verdict, j.evidence = rollout.StepInForce(s), apiVerdict(verdict), verdict.Evidence
	return j
}

// overrules says that the fast lane's word about a rollout counts, not that of the judge by Prometheus.
func (j judged) overrules(own judged) bool {
	return j.verdict.Result == v1alpha1.ResultFail && own.verdict.Result != v1alpha1.ResultFail
}

// judge takes in one look.
func (l *Looks) judge(key types.NamespacedName, s *v1alpha1.RolloutStatus, look analysis.Look) {
	by := settings(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(byPrometheus, look)
	l.judged.put(key, l.recorded(key, s).after(s, by, look))
}

// recorded is what the judge by Prometheus knows of a rollout, from its record where nobody has judged it here. l.mu is held.
func (l *Looks) recorded(key types.NamespacedName, s *v1alpha1.RolloutStatus) judged {
	if known, ok := l.judged.known(key, s); ok {
		return known
	}
	return begun(s, analysis.Restore([]byte(s.JudgeState)))
}

// Verdict is the last one about this candidate in this step, with the judge's state as text to be kept
// in the record. Another step's verdict says nothing about this one, but a Fail stays a Fail, and one of the fast lane is as good.
func (l *Looks) Verdict(key types.NamespacedName, s *v1alpha1.RolloutStatus) (v1alpha1.Verdict, string) {
	if l == nil {
		return v1alpha1.Verdict{}, ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known, _ := l.judged.known(key, s)
	if fast, _ := l.fast.known(key, s); fast.overrules(known) {
		known.verdict = fast.verdict
	}
	text := ""
	if known.state.Looks > 0 { // what was before the rollout is long, and can be asked for again
		text = stateText(known.state)
	}
	before := known.step != s.Step || s.StepSince != nil && !known.looked.After(s.StepSince.Time) // the step began, or began again
	if before && known.verdict.Result != v1alpha1.ResultFail {
		return v1alpha1.Verdict{}, text
	}
	return known.verdict, text
}

// stateText is a judge's state as the record keeps it. In place of one for which there is no room it says that something
// was lost: nothing at all would be a new rollout after a restart, with another chance to fail a good candidate.
func stateText(s analysis.State) string {
	text, err := json.Marshal(s)
	if err != nil || len(text) > maxJudgeState {
		text, _ = json.Marshal(analysis.Forgotten()) // a constant
	}
	return string(text)
}

// Forget drops what is known about a workload.
func (l *Looks) Forget(key types.NamespacedName) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.judged, key)
	delete(l.fast, key)
}

// forgetEnded drops what is known of rollouts that are over and have no metrics any more: a judge's state takes some
// 30 KB, and workloads have their next rollout after weeks. One that goes on all the same has its state in the record.
func (l *Looks) forgetEnded(all map[string]work) {
	goes := map[types.NamespacedName]bool{}
	for _, lane := range all {
		for _, rollouts := range lane {
			for _, r := range rollouts {
				goes[client.ObjectKeyFromObject(r)] = true
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ended := func(key types.NamespacedName, j judged) bool { return !goes[key] && l.last.Sub(j.looked) > exportedFor }
	maps.DeleteFunc(l.judged, ended)
	maps.DeleteFunc(l.fast, ended)
}

// settings are the judge's, from the policy and where the rollout stands.
func settings(s *v1alpha1.RolloutStatus) analysis.Settings {
	spec := recordedPolicy(s)
	steps := rollout.EffectiveSteps(spec, s.Replicas, s.Autoscaled)
	out := analysis.Settings{
		Candidate: s.Candidate.Hash, Stable: s.Stable.Hash,
		Interval:     LookInterval,
		BlindAfter:   rollout.BlindAfter,
		PlannedLooks: int(spec.EffectiveMaxDuration()/LookInterval) + 1,
		Began:        firstWeight(s),
		Steps:        len(steps),
		NoErrorRate:  spec.Analysis.SuccessRate.Disabled, ErrorBudget: spec.Analysis.SuccessRate.Budget(),
		NoLatency: spec.Analysis.Latency.Disabled, LatencyBudget: spec.Analysis.Latency.Budget(),
		LatencyBound: spec.Analysis.Latency.EffectiveBound(),
	}
	for i := range spec.Analysis.Metrics {
		out.Metrics = append(out.Metrics, policy.Criterion(&spec.Analysis.Metrics[i]))
	}
	// Steps that finish early leave their time to the later ones; those need less anyway.
	out.MaxStepTime = out.StepTime(spec.EffectiveMaxDuration()-s.JudgedFor.Duration, len(steps)-int(s.Step))
	return out
}

// firstWeight is when the candidate first had a weight; the zero time if it had none yet.
func firstWeight(s *v1alpha1.RolloutStatus) time.Time {
	for _, w := range s.Weights {
		if w.Weight > 0 {
			return w.Since.Time
		}
	}
	return time.Time{}
}

// shorten cuts a text to a number of bytes, never inside a character.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:most-len(more)], "") + more
}

func apiVerdict(v analysis.Verdict) v1alpha1.Verdict {
	e := v.Evidence
	return v1alpha1.Verdict{
		Result: v1alpha1.Result(v.Result), Cause: v.Cause, Message: shorten(v.Message, maxMessage),
		Evidence: &v1alpha1.Evidence{
			CandidateRequests: e.CandidateRequests, CandidateErrors: e.CandidateErrors,
			StableRequests: e.StableRequests, StableErrors: e.StableErrors,
			Harm: decimal(e.Harm), HarmThreshold: decimal(e.HarmThreshold),
			Acceptance: decimal(e.Acceptance), AcceptanceThreshold: decimal(e.AcceptanceThreshold),
			Rates: apiRates(e.Rates), Metrics: apiMetrics(e.Metrics), Missing: e.Missing,
			Looks: e.Looks, StepTime: &metav1.Duration{Duration: time.Duration(e.StepTime * float64(time.Second))},
		},
	}
}

func apiRates(rates []analysis.RateEvidence) []v1alpha1.RateEvidence {
	var out []v1alpha1.RateEvidence
	for _, r := range rates {
		candidate, stable := r.Intervals()
		out = append(out, v1alpha1.RateEvidence{
			Name:              r.Name,
			CandidateRequests: int64(r.Total.CandidateRequests), CandidateEvents: int64(r.Total.CandidateEvents),
			StableRequests: int64(r.Total.StableRequests), StableEvents: int64(r.Total.StableEvents),
			CandidateRange: between(candidate), StableRange: between(stable),
			Harm: decimal(r.Harm), Acceptance: decimal(r.Acceptance), DryRun: r.DryRun, Missing: r.Missing,
		})
	}
	return out
}

func apiMetrics(metrics []analysis.MetricEvidence) []v1alpha1.MetricEvidence {
	var out []v1alpha1.MetricEvidence
	for _, m := range metrics {
		e := v1alpha1.MetricEvidence{Name: m.Name, Outside: int32(m.Outside), DryRun: m.DryRun, Missing: m.Missing}
		if m.Known {
			e.Value = strconv.FormatFloat(m.Value, 'g', 6, 64)
		}
		if m.Known && m.Compared {
			e.Stable = strconv.FormatFloat(m.Stable, 'g', 6, 64)
		}
		out = append(out, e)
	}
	return out
}

// between is an interval of shares in percent: "0.12 to 0.4".
func between(i analysis.Interval) string {
	percent := func(v float64) string { return strconv.FormatFloat(100*v, 'g', 3, 64) }
	return percent(i.Low) + " to " + percent(i.High)
}

// decimal is a number to three digits, as text: the Kubernetes API has no floating-point fields.
func decimal(v float64) string {
	if v == 0 {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
