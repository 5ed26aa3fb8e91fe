// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// counters answer every look with the same requests and errors, and know nothing of the past.
type counters struct {
	candidate, stable analysis.Counts
	asked             *[]prometheus.Target
}

func (counters) Past(context.Context, prometheus.Target, prometheus.Span) ([]analysis.Look, error) {
	return nil, nil
}

func (c counters) Looks(_ context.Context, at time.Time, targets []prometheus.Target) ([]analysis.Look, error) {
	if c.asked != nil {
		*c.asked = append(*c.asked, targets...)
	}
	out := make([]analysis.Look, len(targets))
	for i, t := range targets {
		out[i] = t.Look(at)
		out[i].Candidate, out[i].Stable = map[string]analysis.Counts{"s1": c.candidate}, map[string]analysis.Counts{"s1": c.stable}
	}
	return out, nil
}

var (
	healthy = counters{candidate: analysis.Counts{Requests: 100}, stable: analysis.Counts{Requests: 900}}
	failing = counters{candidate: analysis.Counts{Requests: 100, Errors: 100}, stable: analysis.Counts{Requests: 900}}
)

// watching looks at these rollouts through c; nil: no Prometheus is configured.
func watching(t *testing.T, c Counters, objects ...client.Object) (*Looks, *[]types.NamespacedName) {
	t.Helper()
	woken := &[]types.NamespacedName{}
	var mu sync.Mutex // each Prometheus has a goroutine of its own
	l := &Looks{
		Client: cluster(t, objects...).Build(),
		Wake: func(key types.NamespacedName) {
			mu.Lock()
			defer mu.Unlock()
			*woken = append(*woken, key)
		},
		Connect: func(Endpoint) (Counters, error) { return c, nil },
	}
	if c != nil {
		l.Prometheus.URL = "prometheus.example"
	}
	return l, woken
}

func lookFrom(t *testing.T, l *Looks, from, looks int) {
	t.Helper()
	for i := range looks {
		if err := l.look(t.Context(), at(from+5*i))(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerdictIsAboutThisStepOfThisRollout(t *testing.T) {
	status := func(change func(*v1alpha1.RolloutStatus)) *v1alpha1.RolloutStatus {
		s := record().Status
		change(&s)
		return &s
	}
	const none = v1alpha1.Result("")
	same := status(func(*v1alpha1.RolloutStatus) {})
	next := status(func(s *v1alpha1.RolloutStatus) { s.Step = 1 })
	for name, tc := range map[string]struct {
		counters counters
		asks     *v1alpha1.RolloutStatus
		want     v1alpha1.Result
		state    bool // whether there is a judge's state to be kept
	}{
		"the step that was judged":             {healthy, same, v1alpha1.ResultPass, true},
		"the next step has no verdict yet":     {healthy, next, none, true},
		"a Fail stays a Fail in the next step": {failing, next, v1alpha1.ResultFail, true},
		"another candidate":                    {failing, status(func(s *v1alpha1.RolloutStatus) { s.Candidate.Hash = "ccc" }), none, false},
		"a retry of the same candidate":        {failing, status(func(s *v1alpha1.RolloutStatus) { s.StartedAt = &metav1.MicroTime{Time: at(900)} }), none, false},
		"no candidate any more":                {failing, status(func(s *v1alpha1.RolloutStatus) { s.Candidate.Hash = "" }), none, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, woken := watching(t, tc.counters, record())
			lookFrom(t, l, 5, 20)
			if len(*woken) != 20 || (*woken)[0] != webKey {
				t.Errorf("woken: %v, want %s for each of 20 looks", *woken, webKey)
			}
			verdict, state := l.Verdict(webKey, tc.asks)
			if verdict.Result != tc.want || (state != "") != tc.state {
				t.Errorf("the verdict is %q (%s), the state %q; want %q", verdict.Result, verdict.Message, state, tc.want)
			}
			l.Forget(webKey)
			if verdict, state := l.Verdict(webKey, same); verdict.Result != none || state != "" {
				t.Errorf("forgotten, it still says %q", verdict.Result)
			}
		})
	}
}

// A step has no verdict before its weight is in force: its pods may take minutes to be ready, and until then the looks are about the
// weight of the step before.
func TestVerdictIsAboutTheWeightOfTheStep(t *testing.T) {
	r := record()
	r.Status.Step, r.Status.StepSince = 1, nil
	l, _ := watching(t, healthy, r)
	lookFrom(t, l, 5, 20)
	if v, state := l.Verdict(webKey, &r.Status); v.Result != "" || state == "" {
		t.Errorf("while its pods start, step 1 is judged %q: %s", v.Result, v.Message)
	}
	began := r.Status.DeepCopy()
	began.StepSince, began.WeightInForce = &metav1.MicroTime{Time: at(106)}, 25
	if v, _ := l.Verdict(webKey, began); v.Result != "" {
		t.Errorf("before anybody has looked at its weight, step 1 is judged %q: %s", v.Result, v.Message)
	}
}

// remembers keeps what it was asked about.
func remembers(asked *[]prometheus.Target) counters {
	c := healthy
	c.asked = asked
	return c
}

// Step 1 wants five pods, and waits for them: what is looked at is step 0 with the one pod that answers.
func TestCandidatePodsAreThoseThatGetRequests(t *testing.T) {
	r := record()
	r.Status.Step, r.Status.StepSince, r.Status.CandidateReplicas = 1, nil, 5
	starts := func(p *corev1.Pod) { p.Status.Conditions = nil }
	var asked []prometheus.Target
	l, _ := watching(t, remembers(&asked), r, podOf(candidateHash, "c1", "10.0.0.1"), podOf(candidateHash, "c2", "10.0.0.2", starts), podOf(stableHash, "s1", "10.0.0.3"))
	lookFrom(t, l, 5, 1)
	if len(asked) != 1 || asked[0].Step != 0 || asked[0].CandidatePods != 1 {
		t.Errorf("the judge is asked about %+v", asked)
	}
}

// The user pauses as soon as the step is in force, for ten minutes of little traffic: the step's time is not up when he resumes.
func TestAPauseIsNotTheStepsTime(t *testing.T) {
	r := record()
	r.Status.Phase, r.Status.ResumePhase = v1alpha1.PhasePaused, v1alpha1.PhaseStepping
	r.Status.StepSince = &metav1.MicroTime{Time: at(3)}
	l, _ := watching(t, counters{candidate: analysis.Counts{Requests: 1}, stable: analysis.Counts{Requests: 9}}, r)
	lookFrom(t, l, 5, 120)
	if v, _ := l.Verdict(webKey, &r.Status); v.Result != v1alpha1.ResultUndecided || v.Evidence.Looks != 120 {
		t.Errorf("after a pause of ten minutes the step is %s, by %d looks: %s", v.Result, v.Evidence.Looks, v.Message)
	}
}

// The step began again between two looks, with other pods: what was accepted before is not it.
func TestAStepThatBeginsAgainIsJudgedAgain(t *testing.T) {
	r := record()
	r.Status.StepSince = &metav1.MicroTime{Time: at(1)}
	l, _ := watching(t, healthy, r)
	lookFrom(t, l, 5, 20)
	again := r.Status.DeepCopy()
	again.StepSince = &metav1.MicroTime{Time: at(101)}
	if v, _ := l.Verdict(webKey, again); v.Result != "" {
		t.Errorf("before anybody has looked again it is %q: %s", v.Result, v.Message)
	}
	next := stored(t, l.Client.(client.Client), record())
	next.Status.StepSince = again.StepSince
	if err := l.Client.(client.Client).Status().Update(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	lookFrom(t, l, 105, 1)
	if v, _ := l.Verdict(webKey, again); v.Result != v1alpha1.ResultUndecided || l.judged[webKey].state.StepLooks != 1 {
		t.Errorf("after one look it is %q, by %d looks", v.Result, l.judged[webKey].state.StepLooks)
	}
}

func TestWithoutAnalysisNothingIsSaid(t *testing.T) {
	var l *Looks
	s := record().Status
	l.Forget(webKey)
	if v, state := l.Verdict(webKey, &s); v.Result != "" || state != "" {
		t.Errorf("it says %q, %q", v.Result, state)
	}
}

func TestStateIsRestoredFromTheRecord(t *testing.T) {
	before, _ := watching(t, healthy, record())
	lookFrom(t, before, 5, 3)
	s := record().Status
	_, state := before.Verdict(webKey, &s)

	kept := record()
	kept.Status.JudgeState = state
	after, _ := watching(t, healthy, kept)
	lookFrom(t, after, 50, 1)
	v, _ := after.Verdict(webKey, &s)
	if v.Evidence == nil || v.Evidence.Looks != 4 || v.Evidence.CandidateRequests != 400 {
		t.Errorf("after a restart the evidence is %+v, want that of 4 looks", v.Evidence)
	}
}

// What is known of a rollout that is over takes memory until the next one, which may be in weeks.
func TestARolloutThatIsOverIsForgotten(t *testing.T) {
	over, going := record(), record()
	going.Name = "api"
	l, _ := watching(t, healthy, over, going)
	lookFrom(t, l, 5, 3)
	over.Status.Phase = v1alpha1.PhaseIdle
	l.Client = cluster(t, over, going).Build()
	for _, tc := range []struct{ at, known int }{{5 + 2*5 + 60, 2}, {5 + 2*5 + 65, 1}} {
		lookFrom(t, l, tc.at, 1)
		if len(l.judged) != tc.known {
			t.Errorf("after %d s %d rollouts are known, want %d", tc.at, len(l.judged), tc.known)
		}
	}
}

// A state that is too large is as good as lost after a restart. Without the mark it would be a new rollout.
func TestAStateThatDoesNotFitIsKeptAsLost(t *testing.T) {
	long := strings.Repeat("p", maxJudgeState)
	l := &Looks{}
	s := record().Status
	l.judge(webKey, &s, analysis.Look{
		Time: at(5), Weight: 10,
		Candidate: map[string]analysis.Counts{"new": {Requests: 100}}, Stable: map[string]analysis.Counts{long: {Requests: 900}},
	})
	v, state := l.Verdict(webKey, &s)
	if v.Evidence == nil || v.Evidence.Looks != 1 {
		t.Errorf("until then the evidence is %+v, want that of the look", v.Evidence)
	}
	if kept := analysis.Restore([]byte(state)); len(state) > maxJudgeState || !kept.Lost || kept.Looks != 0 {
		t.Errorf("%d bytes are kept, with lost %t and %d looks", len(state), kept.Lost, kept.Looks)
	}
}

func TestMissingPrometheusIsMissingData(t *testing.T) {
	l, _ := watching(t, nil, record())
	lookFrom(t, l, 5, 20)
	s := record().Status
	v, _ := l.Verdict(webKey, &s)
	if v.Result != v1alpha1.ResultHold || v.Cause != analysis.CauseBlind || !strings.Contains(v.Evidence.Missing, "no Prometheus is configured") {
		t.Errorf("the verdict is %+v with %+v", v, v.Evidence)
	}
}

func TestPrometheusThatCannotBeUsedIsMissingData(t *testing.T) {
	l, woken := watching(t, healthy, record())
	l.Connect = func(Endpoint) (Counters, error) { return nil, errRefused }
	if err := l.look(t.Context(), at(5))(); !errors.Is(err, errRefused) {
		t.Errorf("the error is %v", err)
	}
	s := record().Status
	v, _ := l.Verdict(webKey, &s)
	if v.Result != v1alpha1.ResultUndecided || len(*woken) != 1 {
		t.Errorf("the verdict is %q, woken %v", v.Result, *woken)
	}
	if got, want := v.Evidence.Missing, "the address of Prometheus can't be used"; !strings.Contains(got, want) {
		t.Errorf("missing is %q, want %q", got, want)
	}
}

// What is the matter with an address is said, also of one that a policy names, and nothing that is in it.
func TestAnAddressThatCannotBeUsed(t *testing.T) {
	l, _ := watching(t, nil, naming(t, "shop", "web", "http://x:99999/hunter2"))
	l.Connect = func(e Endpoint) (Counters, error) { return prometheus.New(prometheus.Config{URL: e.URL}) }
	if err := l.look(t.Context(), at(5))(); !errors.Is(err, prometheus.ErrAddress) {
		t.Errorf("the error is %v", err)
	}
	s := naming(t, "shop", "web", "http://x:99999/hunter2").Status
	v, _ := l.Verdict(webKey, &s)
	want := "request counters (the address of Prometheus can't be used: its port is not a number from 1 to 65535)"
	if v.Evidence == nil || v.Evidence.Missing != want {
		t.Errorf("the evidence is %+v, want missing %q", v.Evidence, want)
	}
}

// silent never answers.
type silent struct {
	counters
	why string // after ReasonNoAnswer
}

func (s silent) Looks(_ context.Context, at time.Time, targets []prometheus.Target) ([]analysis.Look, error) {
	out := make([]analysis.Look, len(targets))
	for i, t := range targets {
		out[i] = analysis.Look{Time: at, Step: t.Step, Weight: t.Weight, Missing: true, Reason: prometheus.ReasonNoAnswer + s.why}
	}
	return out, nil
}

func TestWhyPrometheusDoesNotAnswer(t *testing.T) {
	const refused = ": connection refused"
	for name, tc := range map[string]struct{ url, why, want string }{
		"nobody knows":      {"http://prometheus:9090", "", "no answer from Prometheus at http://prometheus:9090"},
		"it is known":       {"http://prometheus:9090", refused, "no answer from Prometheus at http://prometheus:9090: connection refused"},
		"beside a password": {"http://user:hunter2@prometheus:9090", refused, "no answer from Prometheus at http://prometheus:9090: connection refused"},
		"beside a long address": {
			"http://prometheus/" + strings.Repeat("x", 2000), refused,
			"no answer from Prometheus at http://prometheus/" + strings.Repeat("x", 49) + "…: connection refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := watching(t, silent{why: tc.why}, record())
			l.Prometheus.URL = tc.url
			lookFrom(t, l, 5, 1)
			s := record().Status
			v, _ := l.Verdict(webKey, &s)
			if want := "request counters (" + tc.want + ")"; v.Evidence == nil || v.Evidence.Missing != want {
				t.Errorf("the evidence is %+v, want missing %q", v.Evidence, want)
			}
		})
	}
}

func TestWhatPrometheusIsAsked(t *testing.T) {
	own := record()
	own.Name = "api"
	own.Status.Policy = policyJSON(t, v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{
		Prometheus: &v1alpha1.PrometheusRef{URL: "own.example"},
		Metrics:    []v1alpha1.Metric{{Name: "m", MetricSpec: v1alpha1.MetricSpec{Query: "up"}}},
	}})
	quarantined := record()
	quarantined.Name, quarantined.Status.Phase = "bad", v1alpha1.PhaseQuarantined
	first := record()
	first.Name, first.Status.Stable = "first", v1alpha1.Revision{}
	l, _ := watching(t, nil, record(), own, quarantined, first, podOf(stableHash, "s1", ""), podOf(candidateHash, "c1", ""))
	l.Prometheus.URL = "default.example"
	asked := map[string]*[]prometheus.Target{}
	var mu sync.Mutex
	l.Connect = func(e Endpoint) (Counters, error) {
		url := e.URL
		mu.Lock()
		defer mu.Unlock()
		if asked[url] != nil {
			t.Errorf("connected to %s twice", url)
		}
		asked[url] = &[]prometheus.Target{}
		return counters{asked: asked[url]}, nil
	}
	lookFrom(t, l, 5, 1)
	target := prometheus.Target{
		Namespace: "shop", Workload: "web", Candidate: candidateHash, Stable: stableHash, Weight: 10,
		Created: map[string]time.Time{"s1": at(0).Local(), "c1": at(0).Local()}, Sidecars: map[string]string{},
	}
	api := target
	api.Workload, api.Metrics = "api", []prometheus.Query{{Name: "m", Expression: "up"}}
	want := map[string]*[]prometheus.Target{"default.example": {target}, "own.example": {api}}
	if d := cmp.Diff(want, asked); d != "" {
		t.Errorf("targets by Prometheus (-want +got):\n%s", d)
	}
	lookFrom(t, l, 10, 1) // connects no second time
}

func policyJSON(t *testing.T, p v1alpha1.RolloutPolicySpec) string {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSettingsComeFromTheRecordedPolicy(t *testing.T) {
	policy := v1alpha1.RolloutPolicySpec{
		Steps:       []v1alpha1.Step{{Weight: 20}, {Weight: 60}},
		MaxDuration: &metav1.Duration{Duration: 2 * time.Minute},
		Analysis: v1alpha1.Analysis{
			SuccessRate: v1alpha1.SuccessRate{Disabled: true, Objective: ptr("87.5")},
			Latency:     v1alpha1.Latency{Bound: &metav1.Duration{Duration: 300 * time.Millisecond}, Objective: ptr("75")},
			Metrics: []v1alpha1.Metric{
				{Name: "a", MetricSpec: v1alpha1.MetricSpec{Range: &v1alpha1.Range{Min: ptr("0.98")}, DryRun: ptr(true)}},
				{Name: "b", MetricSpec: v1alpha1.MetricSpec{
					ComparedToStable: &v1alpha1.Comparison{Min: &v1alpha1.Line{Ratio: ptr("0.5")}, Max: &v1alpha1.Line{Difference: ptr("-3")}},
					Interval:         &metav1.Duration{Duration: time.Minute}, WarmUp: &metav1.Duration{Duration: 30 * time.Second}, Weight: ptr(int32(40)),
				}},
				{Name: "c", MetricSpec: v1alpha1.MetricSpec{Rate: &v1alpha1.MetricRate{Harm: &v1alpha1.RateLine{Ratio: "1.5", Difference: "0.01"}}}},
				{Name: "d", Template: &v1alpha1.TemplateRef{Name: "gone"}},
			},
		},
	}
	last := record()
	first := metav1.NewMicroTime(time.Date(2026, 3, 1, 12, 0, 7, 0, time.UTC))
	last.Status.Weights = []v1alpha1.WeightRecord{
		{Since: metav1.NewMicroTime(first.Add(-time.Hour))}, {Since: first, Weight: 20}, {Since: metav1.NewMicroTime(first.Add(time.Hour)), Step: 1, Weight: 60},
	}
	last.Status.Policy, last.Status.Step, last.Status.JudgedFor = policyJSON(t, policy), 1, metav1.Duration{Duration: 30 * time.Second}
	want := analysis.Settings{
		Candidate: candidateHash, Stable: stableHash, Interval: 5 * time.Second, BlindAfter: time.Minute, PlannedLooks: 25, Began: first.Time, Steps: 2,
		MaxStepTime: 90 * time.Second, // the last step gets all that is left
		NoErrorRate: true, ErrorBudget: 0.125, LatencyBound: 300 * time.Millisecond, LatencyBudget: 0.25,
		Metrics: []analysis.Criterion{
			{Name: "a", Range: &analysis.Range{Min: ptr(0.98)}, DryRun: true},
			{
				Name: "b", Compared: &analysis.Comparison{Min: &analysis.Margin{Ratio: 0.5}, Max: &analysis.Margin{Ratio: 1, Excess: -3}},
				Interval: time.Minute, WarmUp: 30 * time.Second, Vote: 40,
			},
			{Name: "c", Rate: &analysis.RateCriterion{Harm: analysis.Margin{Ratio: 1.5, Excess: 0.01}}},
			{Name: "d"},
		},
	}
	if d := cmp.Diff(want, settings(&last.Status)); d != "" {
		t.Errorf("settings (-want +got):\n%s", d)
	}
	unreadable := record()
	unreadable.Status.Policy = "{"
	if got := settings(&unreadable.Status); got.Steps != 3 || got.PlannedLooks != 49 || got.NoErrorRate {
		t.Errorf("without a readable policy the settings are %+v, want the defaults: 3 steps in 4 minutes", got)
	}
}

// Without the policy nobody knows what was to be judged, so nothing is, and the rollout says so.
func TestWithoutARecordedPolicyNothingIsJudged(t *testing.T) {
	for name, policy := range map[string]string{"it was too long to be kept": "", "it can't be read": "{"} {
		t.Run(name, func(t *testing.T) {
			r := record()
			r.Status.Policy = policy
			l, _ := watching(t, failing, r)
			lookFrom(t, l, 5, 13)
			v, _ := l.Verdict(webKey, &r.Status)
			if v.Result != v1alpha1.ResultHold || !strings.Contains(v.Message, "the policy that this rollout began with is not in its record") {
				t.Errorf("the verdict is %s: %s", v.Result, v.Message)
			}
		})
	}
}

func TestLongMessagesFitIntoTheRecord(t *testing.T) {
	long := apiVerdict(analysis.Verdict{Message: strings.Repeat("é", 2000)}).Message
	if len(long) > 1024 || !utf8.ValidString(long) || !strings.HasSuffix(long, "é…") {
		t.Errorf("%d bytes, ending in %q", len(long), long[len(long)-5:])
	}
	if short := apiVerdict(analysis.Verdict{Message: "fine"}).Message; short != "fine" {
		t.Errorf("a short message became %q", short)
	}
}
