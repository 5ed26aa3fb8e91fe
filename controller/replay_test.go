// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/export"
	"github.com/headgate/headgate/replay"
	"github.com/headgate/headgate/rollout"
)

// keeping is a Prometheus that keeps what it was asked for: the past is what was counted then. Before the first look it was a
// request a second and pod, of which few failed.
type keeping struct {
	rng  *rand.Rand
	rate func(at time.Time) (requests int, candidate, stable float64) // a look's requests, and the shares that fail; 0: nobody answers
	kept map[int64]analysis.Look                                      // by second
}

func (k *keeping) Looks(_ context.Context, at time.Time, targets []prometheus.Target) ([]analysis.Look, error) {
	l := targets[0].Look(at)
	l.Candidate, l.Stable = map[string]analysis.Counts{}, map[string]analysis.Counts{}
	n, candidate, stable := k.rate(at)
	for _, pod := range []string{"s1", "s2", "s3"} {
		var c, s analysis.Counts
		for range n / 3 {
			if k.rng.IntN(100) < l.Weight {
				c.Started, c.Requests, c.Errors = c.Started+1, c.Requests+1, c.Errors+k.failed(candidate)
			} else {
				s.Requests, s.Errors = s.Requests+1, s.Errors+k.failed(stable)
			}
		}
		l.Candidate[pod], l.Stable[pod] = c, s
	}
	if n == 0 {
		l = targets[0].MissingLook(at, "not scraped for 40 s")
	}
	k.kept[at.Unix()] = l
	return []analysis.Look{l}, nil
}

func (k *keeping) failed(share float64) uint64 {
	if k.rng.Float64() < share {
		return 1
	}
	return 0
}

func (k *keeping) Past(_ context.Context, t prometheus.Target, span prometheus.Span) (out []analysis.Look, _ error) {
	for at := span.From.Truncate(time.Second); !at.After(span.To); at = at.Add(span.Every) {
		l, known := k.kept[at.Unix()]
		if !known {
			l = t.Look(at)
			l.Stable = map[string]analysis.Counts{"s1": {Requests: 60, Errors: uint64(at.Minute() % 2)}, "s2": {Requests: 60}, "s3": {Requests: 60}}
		}
		l.Step, l.Weight, l.Since, l.Paused = t.Step, t.Weight, t.Since, t.Paused
		l.Candidate, l.Stable = maps.Clone(l.Candidate), maps.Clone(l.Stable)
		out = append(out, l)
	}
	return out, nil
}

// told is what was answered to a look.
type told struct {
	At       time.Time
	Verdict  string
	Cause    string
	Evidence float64
	Message  string
}

// A rollout under a policy of its own and an autoscaler, with outages, a pause of its user's, pods that take
// their time, a step that begins again, an approval that takes its time, and a bad end: what the judge has said of each look is said again of what was exported, while it goes and afterwards.
func TestAReplaySaysWhatTheJudgeHasSaid(t *testing.T) {
	const steps = `[{"weight":5},{"weight":10,"approval":true},{"weight":25},{"weight":50}]` // the last two are too much for the autoscaler's few pods
	for name, tc := range map[string]struct {
		policy     string
		autoscaled bool
		requests   int
		steps      map[int32]bool // that the judge has looked at
	}{
		"thin":                {`{"maxDuration":"5m","steps":` + steps + `,"analysis":{"successRate":{"objective":"99"}}}`, true, 60, map[int32]bool{0: true, 1: true}},
		"much":                {`{"maxDuration":"8m","steps":` + steps + `}`, true, 1200, map[int32]bool{0: true, 1: true}},
		"without autoscaler":  {`{"maxDuration":"10m","steps":` + steps + `}`, false, 600, map[int32]bool{0: true, 1: true, 2: true}},
		"all of the defaults": {`{}`, false, 600, map[int32]bool{0: true, 1: true, 2: true}},
	} {
		t.Run(name, func(t *testing.T) {
			live := newLived(t, tc.policy, tc.autoscaled, tc.requests)
			for second := 0; second < 1500 && live.status.Phase != v1alpha1.PhaseRollingBack && live.status.Phase != v1alpha1.PhaseQuarantined; second++ {
				live.second(t, second)
				if second == 400 {
					live.compare(t)
				}
			}
			live.compare(t)
			if len(live.status.History) != 1 || live.status.History[0].Outcome != v1alpha1.OutcomeRolledBack {
				t.Errorf("it ended with %+v", live.status.History)
			}
			if diff := cmp.Diff(tc.steps, live.steps); diff != "" {
				t.Errorf("steps that were judged (-want +got):\n%s", diff)
			}
		})
	}
}

// lived is a rollout that goes on second by second.
type lived struct {
	status     v1alpha1.RolloutStatus
	policy     *v1alpha1.RolloutPolicySpec
	autoscaled bool
	looks      *Looks
	client     client.Client
	past       *keeping
	said       []told
	steps      map[int32]bool
	acked      int32
	ready      int // pods of the candidate
	more       int // second since which there should be more
	handsOn    int // second in which the candidate hands on, so that its step begins again between two looks
	second1    int // second in which the second step began
	awaiting   int // since when somebody is to approve
}

// began is 2.4 s after a look.
var began = at(2).Add(400 * time.Millisecond)

func newLived(t *testing.T, policy string, autoscaled bool, requests int) *lived {
	t.Helper()
	l := &lived{policy: &v1alpha1.RolloutPolicySpec{}, autoscaled: autoscaled, steps: map[int32]bool{}, handsOn: 28}
	if err := json.Unmarshal([]byte(policy), l.policy); err != nil {
		t.Fatal(err)
	}
	l.past = &keeping{rng: rand.New(rand.NewPCG(1, 2)), kept: map[int64]analysis.Look{}, rate: func(at time.Time) (int, float64, float64) {
		switch {
		case l.status.Step > 1 || l.second1 > 0 && int(at.Sub(began).Seconds()) > l.second1+500: // the end is bad
			return requests, 0.3, 0.002
		case at.Second() == 40 || at.Second() == 45 && at.Minute()%3 == 0: // short outages
			return 0, 0, 0
		}
		return requests, 0.002, 0.002
	}}
	r := &v1alpha1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	pod := podOf(candidateHash, "c1", "10.0.0.9")
	l.looks, _ = watching(t, l.past, r, pod)
	l.client = l.looks.Client.(client.Client)
	l.status = v1alpha1.RolloutStatus{DeploymentUID: "d-uid", Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: stableHash, Template: "#v1"}}
	return l
}

// second is one: a look at its beginning, where one is due, and what is decided then.
func (l *lived) second(t *testing.T, n int) {
	t.Helper()
	now := began.Add(time.Duration(n) * time.Second)
	if slot := now.Truncate(time.Second); slot.Equal(slot.Truncate(LookInterval)) {
		l.look(t, slot)
	}
	d := rollout.Decide(l.policy, l.status, l.observe(n, now))
	l.acked = d.Status.Weight
	l.status = d.Status
	l.status.JudgeState = ""
}

func (l *lived) look(t *testing.T, slot time.Time) {
	t.Helper()
	l.write(t)
	if err := l.looks.look(t.Context(), slot)(); err != nil {
		t.Fatal(err)
	}
	known, ok := l.looks.judged.known(webKey, &l.status)
	if !ok || !known.looked.Equal(slot) {
		return
	}
	l.steps[known.step] = true
	evidence := known.state.Evidence(settings(&l.status))
	if evidence.HarmThreshold == 0 { // nothing is known yet
		evidence.Harm = 1
	}
	l.said = append(l.said, told{slot, string(known.verdict.Result), known.verdict.Cause, evidence.Harm, known.verdict.Message})
}

func (l *lived) write(t *testing.T) {
	t.Helper()
	var r v1alpha1.Rollout
	if err := l.client.Get(t.Context(), webKey, &r); err != nil {
		t.Fatal(err)
	}
	r.Status = l.status
	if err := l.client.Status().Update(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
}

// observe is what is seen in a second: who has pods, what sidecars have acknowledged, what people want.
func (l *lived) observe(n int, now time.Time) rollout.Observation {
	pods := func(hash string, replicas int) (out []rollout.Pod) {
		for i := range replicas {
			out = append(out, rollout.Pod{Name: fmt.Sprintf("%s-%d", hash, i), CreatedAt: at(-60), NodeReady: true, Gated: hash == candidateHash, Ready: hash == stableHash, ReadyButGate: true})
		}
		return out
	}
	if k := int(l.status.CandidateReplicas); k <= l.ready {
		l.ready, l.more = k, n
	} else if n-l.more > 12 { // more pods take their time, in which the step before is looked at
		l.ready = k
	}
	if l.status.Step == 1 && l.second1 == 0 {
		l.second1 = n
	}
	o := rollout.Observation{
		Now: now, Autoscaled: l.autoscaled,
		Deployment: rollout.Deployment{
			UID: "d-uid", Replicas: 40, Current: true, Template: "#v2", Paused: n >= 40 && n < 73,
			Hold: &v1alpha1.Hold{K: max(1, l.status.CandidateReplicas), UID: "d-uid", Template: "#v2", User: userFields()},
		},
		Revisions: []rollout.Revision{
			{Hash: stableHash, Template: "#v1", Replicas: 40, Desired: 40, Pods: pods(stableHash, 40)},
			{Hash: candidateHash, Template: "#v2", Replicas: l.status.CandidateReplicas, Desired: 40, Pods: pods(candidateHash, l.ready)},
		},
	}
	for _, r := range o.Revisions {
		for _, pod := range r.Pods {
			o.Sidecars = append(o.Sidecars, rollout.Sidecar{Pod: pod.Name, Revision: r.Hash, Connected: true, Candidate: candidateHash, Weight: l.acked, HandsOn: r.Hash == candidateHash && n == l.handsOn})
		}
	}
	if !l.status.AwaitingApproval {
		l.awaiting = n
	} else if n-l.awaiting > 100 {
		o.Wishes.Approve = &v1alpha1.StepWish{Revision: candidateHash, Step: l.status.Step}
	}
	o.Verdict, _ = l.looks.Verdict(webKey, &l.status)
	return o
}

// compare exports the rollout, replays it, and compares what is said of each look.
func (l *lived) compare(t *testing.T) {
	t.Helper()
	l.write(t)
	var lines, answers, sentences, warnings bytes.Buffer
	o := export.Options{
		Client: l.client, Prometheus: l.past, Namespace: "shop", Name: "web", Before: 30 * time.Minute,
		Now: l.said[len(l.said)-1].At.Add(2 * time.Second), Out: &lines,
	}
	if err := export.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := replay.Run(bytes.NewReader(lines.Bytes()), &answers, replay.Options{Warnings: &warnings}); err != nil {
		t.Fatal(err)
	}
	if err := replay.Run(bytes.NewReader(lines.Bytes()), &sentences, replay.Options{Explain: true}); err != nil {
		t.Fatal(err)
	}
	explained := strings.Split(sentences.String(), "\n")
	var got []told
	for i, line := range strings.Split(strings.TrimSpace(answers.String()), "\n") {
		var a struct {
			Time           float64
			Verdict, Cause string
			Evidence       float64
		}
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		_, message, _ := strings.Cut(explained[i], ": ")
		if at := began.Truncate(time.Second).Add(time.Duration(a.Time * float64(time.Second))); !at.Before(l.said[0].At) {
			got = append(got, told{at, a.Verdict, a.Cause, a.Evidence, message})
		}
	}
	if diff := cmp.Diff(l.said, got); diff != "" {
		t.Errorf("after %s, (-live +replayed):\n%s\n%+v", l.said[len(l.said)-1].At.Sub(began), diff, l.status.Weights)
	}
	if warnings.Len() > 0 {
		t.Errorf("warned of %s", &warnings)
	}
}

// Whoever leads looks at the same moments, so that export finds them.
func TestLooksAreMadeByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := &keeping{rng: rand.New(rand.NewPCG(1, 2)), kept: map[int64]analysis.Look{}, rate: func(time.Time) (int, float64, float64) { return 90, 0, 0 }}
		l, _ := watching(t, past, record())
		time.Sleep(2400 * time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		from := time.Now()
		go func() { done <- l.Start(ctx) }()
		time.Sleep(13 * time.Second)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		var after []int64
		for _, second := range slices.Sorted(maps.Keys(past.kept)) {
			after = append(after, second-from.Truncate(LookInterval).Unix())
		}
		if diff := cmp.Diff([]int64{5, 10, 15}, after); diff != "" {
			t.Errorf("looked so many seconds after a multiple of five (-want +got):\n%s", diff)
		}
	})
}
