// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/faults/proxyfault"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// Whatever of Headgate, or of what it needs, breaks in the middle of a rollout: no request is lost, stable
// keeps its pods, and the rollout goes on when things are well again. These break it for the whole cluster.
func testFaults(t *testing.T, cluster *harness.Cluster) {
	for _, test := range []struct {
		name string
		run  func(*harness.Case)
	}{
		{"control plane killed, frozen, away", controlPlaneGone},
		{"API server slow, refusing, away", unreliableAPIServer},
		{"another CA, and no Prometheus", anotherCA},
		{"an expired certificate", expiredCertificate},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(cluster.NewCase(t, harness.Enabled)) })
	}
}

// testOwnFaults are those that nobody but the case itself notices.
func testOwnFaults(t *testing.T, cluster *harness.Cluster) {
	for name, test := range map[string]func(*harness.Case){
		"pods deleted and evicted":               podsGone,
		"the Envoy of a pod that serves killed":  servingEnvoyKilled,
		"sidecars cut off, half-open and slow":   sidecarsDisconnected,
		"Prometheus slow, nonsensical and away":  unreliablePrometheus,
		"a bad version while Prometheus is away": badWithoutPrometheus,
		"another certificate":                    anotherCertificate,
		"annotations and record deleted":         notesDeleted,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(cluster.NewCase(t, harness.Enabled))
		})
	}
}

// controlPlaneGone: the leader dies, the next one freezes with all its connections and wakes up as a leader of
// the past; then there is none at all, while a pod starts that was created, with a sidecar, before, the workload grows, and an
// Envoy and a whole sidecar are killed.
func controlPlaneGone(c *harness.Case) {
	m := begin(c, slowly)
	first, pod := faults.Leader(c, "")
	faults.Kill(c, faults.Replica(pod))
	second, pod := faults.Leader(c, first)
	thaw := faults.Freeze(c, faults.Replica(pod))
	faults.Leader(c, second)
	thaw()
	m.requireStableKept(replicas)

	start := unstarted(c, m.stable)
	back := faults.Away(c, faults.ControlPlane)
	late := start()
	c.AwaitReady(2*time.Minute, m.stable, replicas+1)
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", replicas+2))
	c.AwaitReady(2*time.Minute, m.stable, replicas+2)
	// Requests that a killed process was in the middle of are lost, with or without Headgate. So there are none
	// that take long.
	stopAll(c, m.loads)
	m.loads = c.StartLoads(
		harness.NamedConfig{Name: "service-meanwhile", Config: harness.ToService(shortKinds())},
		harness.NamedConfig{Name: "pods-meanwhile", Config: harness.ToPods(shortKinds())},
	)
	candidate := func() *corev1.Pod { return c.Pods.Of(m.candidate)[0] }
	for _, victim := range []func(*corev1.Pod) faults.Process{faults.Envoy, faults.Sidecar} {
		before := m.loads[0].Report()
		faults.Kill(c, victim(candidate()))
		m.loads[0].Await(time.Minute, "the candidate answers again", func(now load.Report) bool {
			return now.Versions["v2"].OK > before.Versions["v2"].OK+20
		})
	}
	stopAll(c, m.loads)
	m.requireStableKept(replicas)

	// The sidecars have never heard of a split since they were started: whoever asks their pods is answered there.
	m.loads = c.StartLoads(
		harness.NamedConfig{Name: "service-later", Config: harness.ToService(harness.AllKinds())},
		harness.NamedConfig{Name: "pods-later", Config: harness.ToPods(harness.AllKinds())},
		harness.NamedConfig{Name: "again", Config: harness.ToPod(candidate().Status.PodIP, shortKinds())},
		harness.NamedConfig{Name: "late", Config: harness.ToPod(late, shortKinds())},
	)
	started := []struct {
		to         *harness.Load
		own, other string
	}{{m.loads[2], "v2", "v1"}, {m.loads[3], "v1", "v2"}}
	for _, s := range started {
		s.to.Await(time.Minute, "the pod answers", func(now load.Report) bool { return now.Versions[s.own].OK > 50 })
		if r := s.to.Report(); r.Versions[s.other].OK != 0 {
			c.T.Errorf("a sidecar that started without a control plane answers with %v, want %s alone", r.Versions, s.own)
		}
	}
	back()
	for _, s := range started {
		s.to.Await(2*time.Minute, "the sidecar has changed over", func(now load.Report) bool { return now.Versions[s.other].OK > 0 })
		requireNoFailure(c.T, "to a pod of "+s.own, s.to.Stop())
	}
	m.loads = m.loads[:2]
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// unstarted has the workload grow by a pod of stable that the Pod webhook sees and that no node takes, until start is called or the
// test ends. start returns the pod's address.
func unstarted(c *harness.Case, stable string) (start func() (ip string)) {
	c.T.Helper()
	known := map[string]bool{}
	for _, p := range c.Pods.Of(stable) {
		known[p.Name] = true
	}
	node := c.Pods.Of(stable)[0].Spec.NodeName
	c.Do("cordon", node)
	c.T.Cleanup(func() { c.Do("uncordon", node) })
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", len(known)+1))
	var waiting *corev1.Pod
	c.Await(time.Minute, "another pod waits for a node", func(ctx context.Context) error {
		return c.Pods.AwaitPods(ctx, stable, 1, func(p *corev1.Pod) bool {
			if known[p.Name] || p.Spec.NodeName != "" {
				return false
			}
			waiting = p
			return true
		})
	})
	if waiting.Labels[v1alpha1.InjectedLabel] != "true" {
		c.T.Fatalf("pod %s has no sidecar", waiting.Name)
	}
	return func() string {
		c.Do("uncordon", node)
		return c.AwaitPod(waiting.Name, "it is ready", harness.Ready).Status.PodIP
	}
}

// shortKinds are requests that are answered at once.
func shortKinds() map[load.Kind]float64 {
	return map[load.Kind]float64{load.KindHTTP1: 12, load.KindNew: 6, load.KindH2C: 4, load.KindGRPC: 6}
}

// refusals are what an API server in trouble says, in turn.
var refusals = []int{http.StatusConflict, http.StatusTooManyRequests, http.StatusInternalServerError}

// unreliableAPIServer: what the control plane asks of the API server takes two seconds, then every third of its
// writes is refused, then there is no API server for longer than a leader's lease. Where that is possible, the API
// server itself is restarted, for everybody, and the kubelet, so that it gives the pods new tokens; they need them
// when the control plane has come back.
func unreliableAPIServer(c *harness.Case) {
	api := faults.NewAPIServer(c)
	m := beginUnder(c, slowly, func(c *harness.Case) []*harness.Load {
		// Not before stable is there: a pod whose ReplicaSet is not in the cache yet needs a read, which now
		// takes as long as the API server waits for the Pod webhook. Without Headgate's answer a pod starts
		// without a sidecar, and then an update goes out natively.
		api.Set(proxyfault.Faults{Latency: metav1.Duration{Duration: 2 * time.Second}})
		return everywhere(c)
	})
	first := c.Pods.Of(m.candidate)[0]
	token := faults.Token(c, first)
	r, local := c.RestartComponents(c.Ctx, "kube-apiserver", "kubelet")
	if r.Exit != 0 {
		c.T.Fatal(r)
	} else if !local {
		c.T.Log("the API server itself and the kubelet were not restarted, and tokens not rotated: the cluster is not one of e2e/cluster")
	}
	m.requireStableKept(replicas)
	refusing := proxyfault.Faults{Every: 3, Statuses: refusals}
	slow := api.Set(refusing)
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", replicas+1))
	c.AwaitReady(2*time.Minute, m.stable, replicas+1)
	if local {
		c.Await(2*time.Minute, "the candidate's sidecar has another token", func(ctx context.Context) error {
			return wait.PollUntilContextCancel(ctx, time.Second, true, func(context.Context) (bool, error) {
				return faults.Token(c, first) != token, nil
			})
		})
	}
	m.requireStableKept(replicas)
	promote(c, m.candidate)
	c.AwaitPhase(time.Minute, v1alpha1.PhasePromoting)
	refusing.AwayFor = metav1.Duration{Duration: 20 * time.Second}
	counts := api.Set(refusing)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	c.T.Logf("%d writes while slow; %d more while every third was refused, %d of them refused", slow.Writes, counts.Writes-slow.Writes, counts.Refused)
	if counts.Refused == 0 {
		c.T.Error("no write of the control plane was refused")
	}
	m.requireEnd("v2")
}

// anotherCA: sidecars were told the old one when their pod was created, and find the control plane with it whenever they have
// to; the API server changes over at a time of its own. Meanwhile there is no Prometheus: without data nothing is accepted
// and nothing is held against the candidate.
func anotherCA(c *harness.Case) {
	m := begin(c, "steps: [{weight: 20, minDuration: 10s}, {weight: 50, minDuration: 5s}]\nmaxDuration: 60s")
	old := c.Pods.Of(m.stable)[0]
	back := faults.Away(c, faults.Prometheus)
	stop := keepUpdating(c)
	faults.ReplaceCA(c)
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", replicas+1))
	c.AwaitReady(2*time.Minute, m.stable, replicas+1)
	faults.Restart(c)
	for _, refusal := range stop() {
		c.T.Errorf("an update was refused while the CA was replaced: %v", refusal)
	}
	requireBlind(c)
	m.requireStableKept(replicas)
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
	c.AwaitStable()
	stopAll(c, m.loads)

	back()
	m.loads = c.StartLoads(
		harness.NamedConfig{Name: "service-later", Config: harness.ToService(harness.AllKinds())},
		harness.NamedConfig{Name: "old", Config: harness.ToPod(old.Status.PodIP, shortKinds())},
	)
	c.SetImage("v3")
	third := c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	toOld := m.loads[1]
	toOld.Await(time.Minute, "a sidecar that was told the old CA hears of the third version", func(now load.Report) bool { return now.Versions["v3"].OK > 0 })
	requireNoFailure(c.T, "to a pod that was told the old CA", toOld.Stop()) // it is replaced soon
	m.loads = m.loads[:1]
	m.requireNeverReady(third)
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	m.requireEnd("v3")
}

// requireBlind waits until the Rollout says that there is no data, and checks that nothing was concluded from it.
func requireBlind(c *harness.Case) {
	c.T.Helper()
	r := c.AwaitRollout(3*time.Minute, "the Rollout says that it can't judge", func(r *v1alpha1.Rollout) bool {
		return condition(r.Status.Conditions, v1alpha1.ConditionJudged).Status == metav1.ConditionFalse && r.Status.BlindSince != nil
	})
	if r.Status.Step != 0 || len(r.Status.History) != 0 {
		c.T.Errorf("without data the rollout went on: step %d, %+v", r.Status.Step, r.Status.History)
	}
}

// podsGone: pods come and go for reasons of their own, before the promotion and while it goes on. Natively, too,
// a pod that is evicted is missing until there is another one.
func podsGone(c *harness.Case) {
	m := begin(c, slowly)
	c.Do("delete", "pod", c.Pods.Of(m.candidate)[0].Name, "--wait=false")
	faults.Evict(c, c.Pods.Of(m.stable)[0])
	c.AwaitQuiet()
	c.AwaitReady(2*time.Minute, m.stable, replicas)
	c.AwaitReadyButGated(2*time.Minute, m.candidate, 1)
	if r := c.AwaitWeight(2*time.Minute, 0, 20); len(r.Status.History) != 0 {
		c.T.Errorf("the rollout ended: %+v", r.Status.History)
	}
	m.requireStableKept(replicas - 1)
	promote(c, m.candidate)
	c.AwaitPhase(time.Minute, v1alpha1.PhasePromoting)
	faults.Evict(c, c.Pods.Of(m.candidate)[0])
	c.Do("delete", "pod", c.Pods.Of(m.stable)[0].Name, "--wait=false")
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// servingEnvoyKilled: clients of a stable pod talk to its Envoy, as natively to the app. What that was in the middle of when it was
// killed is lost, and what comes until it is there again, or the pod is known not to be ready. Nobody else loses anything,
// however long it takes.
func servingEnvoyKilled(c *harness.Case) {
	var pods []*corev1.Pod
	m := beginUnder(c, slowly, func(c *harness.Case) []*harness.Load {
		pods = c.Pods.Of(c.AwaitStable().Status.Stable.Hash)
		return c.StartLoads(
			harness.NamedConfig{Name: "service", Config: harness.ToService(harness.AllKinds())},
			harness.NamedConfig{Name: "another", Config: harness.ToPod(pods[1].Status.PodIP, harness.AllKinds())},
			harness.NamedConfig{Name: "killed", Config: harness.ToPod(pods[0].Status.PodIP, shortKinds())},
		)
	})
	service, another, killed := m.loads[0], m.loads[1], m.loads[2]
	away := interval{from: time.Now()}
	faults.Kill(c, faults.Envoy(pods[0]))
	away.to = time.Now().Add(envoyAway)
	before := killed.Report()
	killed.Await(envoyAway, "the pod answers again", func(now load.Report) bool {
		return now.Versions["v1"].OK > before.Versions["v1"].OK+50 && now.Versions["v2"].OK > before.Versions["v2"].OK
	})
	killed.Stop()
	c.AwaitReady(time.Minute, m.stable, replicas)
	another.Await(time.Minute, "long requests have ended", func(now load.Report) bool { return now.At.After(away.to) })
	requireNoFailure(c.T, "to another pod", another.Stop())
	r := service.Stop()
	// What comes for one pod of two meanwhile, and what takes long.
	if most := requestsWithin(1, unreadyWithin) + 13; r.Failed > most {
		c.T.Errorf("%d requests failed, want at most %d: %v %v", r.Failed, most, r.Classes, r.Versions)
	}
	for class := range r.Classes {
		if strings.HasPrefix(class, "status-") {
			c.T.Errorf("requests were answered with a failure: %v", r.Classes)
		}
	}
	each(service.Reports(), func(before, now load.Report) {
		if lost := now.Failed - before.Failed; lost > 0 && !away.overlaps(interval{before.At, now.At}) {
			c.T.Errorf("%d requests failed at %v, long after an Envoy was killed at %v", lost, now.At, away.from)
		}
	})
	c.T.Logf("%d of %d requests were lost with the Envoy: %v", r.Failed, r.Sent, r.Classes)
	m.requireStableKept(replicas - 1)
	m.loads = everywhereAs(c, "later-")
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// sidecarsDisconnected: what a sidecar was told last is wrong when the candidate is gone, and the control plane
// learns late, or never, that it did not hear the next word.
func sidecarsDisconnected(c *harness.Case) {
	var stable []*corev1.Pod
	m := beginUnder(c, slowly, func(c *harness.Case) []*harness.Load {
		stable = c.Pods.Of(c.AwaitStable().Status.Stable.Hash)
		return c.StartLoads(
			harness.NamedConfig{Name: "service", Config: harness.ToService(harness.AllKinds())},
			harness.NamedConfig{Name: "pods", Config: harness.ToPods(harness.AllKinds())},
			harness.NamedConfig{Name: "deaf", Config: harness.ToPod(stable[0].Status.PodIP, shortKinds())},
		)
	})
	toDeaf := m.loads[2]
	mend := []func(){
		faults.Disconnect(c, stable[0], faults.HalfOpen),
		faults.Disconnect(c, stable[1], faults.Slow),
		faults.Disconnect(c, c.Pods.Of(m.candidate)[0], faults.Cut),
	}
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
	c.AwaitStable()
	m.requireStableKept(replicas)

	c.SetImage("v3")
	third := c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	for _, mend := range mend {
		mend()
	}
	toDeaf.Await(time.Minute, "the sidecar that was half-open takes part again", func(now load.Report) bool { return now.Versions["v3"].OK > 0 })
	requireNoFailure(c.T, "to the pod whose sidecar was half-open", toDeaf.Stop()) // a client of one pod has nobody to ask when that is replaced
	m.loads = m.loads[:2]
	m.requireNeverReady(third)
	faults.Disconnect(c, c.Pods.Of(third)[0], faults.HalfOpen)
	promote(c, third)
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	m.requireEnd("v3")
}

// unreliablePrometheus answers with nothing that is a number, then late, then not at all, and at last as if every counter had begun
// again.
func unreliablePrometheus(c *harness.Case) {
	prometheus, url := faults.NewPrometheus(c)
	prometheus.Set(proxyfault.Faults{NaN: true})
	m := begin(c, fmt.Sprintf("steps: [{weight: 20, minDuration: 5s}, {weight: 50, minDuration: 5s}]\nmaxDuration: 60s\nanalysis: {prometheus: {url: %q}}", url))
	asked := prometheus.Await(time.Minute, proxyfault.Faults{NaN: true}, 4)
	prometheus.Await(time.Minute, proxyfault.Faults{Latency: metav1.Duration{Duration: 5 * time.Second}}, asked.Requests+4)
	prometheus.Set(proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}})
	requireBlind(c)
	m.requireStableKept(replicas)
	prometheus.Set(proxyfault.Faults{Reset: true})
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// badWithoutPrometheus: nobody answers for Prometheus, and what the sidecars say themselves ends a version that fails half of
// its requests.
func badWithoutPrometheus(c *harness.Case) {
	prometheus, url := faults.NewPrometheus(c)
	prometheus.Set(proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}})
	c.Policy(fmt.Sprintf("steps: [{weight: 50}]\nmaxDuration: 10m\nprogressDeadline: 60s\nanalysis: {prometheus: {url: %q}}", url))
	c.Deploy(fmt.Sprintf("replicas=%d", replicas))
	stable := c.AwaitStable().Status.Stable.Hash
	c.Pods.Mark(stable)
	l := c.StartLoad("service", harness.ToService(enough()))
	c.Apply(c.Manifest(fmt.Sprintf("replicas=%d", replicas), "tag=errors", "env.ERROR_RATE=0.5"))
	end := requireOutcome(c, 1, v1alpha1.OutcomeRolledBack)
	if v := end.Verdict; v == nil || v.Cause != "ErrorRate" || !strings.Contains(v.Message, "read from the sidecars") {
		c.T.Errorf("the verdict is %+v, want ErrorRate by the sidecars' counters", v)
	} else {
		c.T.Logf("rolled back after %v: %s", end.EndedAt.Sub(end.StartedAt.Time).Round(time.Second), v.Message)
	}
	if least := c.Pods.Least(stable); least != replicas {
		c.T.Errorf("only %d stable pods were ready at some moment, want %d throughout", least, replicas)
	}
	requireOnlyCandidateFails(c.T, l.Stop())
}

// anotherCertificate of the same CA, for webhooks and xDS.
func anotherCertificate(c *harness.Case) { withCertificate(c, faults.RotateCertificate) }

// expiredCertificate: sidecars keep their streams, and it is replaced before anybody needs another one.
func expiredCertificate(c *harness.Case) { withCertificate(c, faults.ExpireCertificate) }

func withCertificate(c *harness.Case, replaced func(*harness.Case)) {
	m := begin(c, slowly)
	replaced(c)
	c.Do("annotate", "deployment", harness.Name, "team=shop") // a held workload's writes need the webhook
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", replicas+1))
	c.AwaitReady(2*time.Minute, m.stable, replicas+1)
	m.requireStableKept(replicas)
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// notesDeleted: somebody removes by hand what Headgate has noted about the rollout. The annotations are there again in
// the same write, the record is made again from them and begins anew with the same candidate.
func notesDeleted(c *harness.Case) {
	m := begin(c, slowly)
	notes := []string{v1alpha1.HoldAnnotation, v1alpha1.GateAnnotation, v1alpha1.GateTemplateAnnotation}
	for _, key := range notes {
		c.Do("annotate", "deployment", harness.Name, key+"-")
	}
	d := c.AwaitObserved()
	for _, key := range notes {
		if d.Annotations[key] == "" {
			c.T.Errorf("annotation %s was removed in the middle of a rollout", key)
		}
	}
	first := c.AwaitWeight(time.Minute, 0, 20)
	c.Do("delete", "rollouts.headgate.dev", harness.Name)
	again := c.AwaitRollout(2*time.Minute, "another record says that the weight is in force", func(r *v1alpha1.Rollout) bool {
		return r.UID != first.UID && r.Status.WeightInForce == 20
	})
	if s := again.Status; s.Stable.Hash != m.stable || s.Candidate.Hash != m.candidate {
		c.T.Errorf("the new record has stable %s and candidate %s, want %s and %s", s.Stable.Hash, s.Candidate.Hash, m.stable, m.candidate)
	}
	m.requireStableKept(replicas)
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}
