// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/faults/proxyfault"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// TestWalk does at random what people do to a workload, while at random things break, for as long as
// HEADGATE_E2E_WALK says; `make soak` sets it. Each round has a namespace, a few minutes of moves, and a quiet end
// at which everything must be as it should. A round is named by its seed: HEADGATE_E2E_WALK_SEED plays it first.
func TestWalk(t *testing.T) {
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv("HEADGATE_E2E_WALK"), "0s"))
	if err != nil {
		t.Fatalf("reading HEADGATE_E2E_WALK: %v", err)
	}
	if lasts == 0 {
		t.Skip("HEADGATE_E2E_WALK is not set: see make soak")
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("HEADGATE_E2E_WALK_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatalf("reading HEADGATE_E2E_WALK_SEED: %v", err)
	}
	cluster, err := harness.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.EnsureInstalled(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(lasts); time.Now().Before(end); seed++ {
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			newWalk(cluster.NewCase(t, harness.Enabled), seed).round()
		})
		if !ok {
			return // what it left behind may be what the next one finds
		}
	}
}

// walk is one round.
type walk struct {
	*harness.Case
	rand  *rand.Rand
	start time.Time
	// kill says whether Envoys are killed, and killed how many were. The requests of that round take no time, because those
	// that a killed process was in the middle of are lost, with or without Headgate: on a busy machine one can be even so.
	kill   bool
	killed int64
	loads  []*harness.Load
	// prometheus is the one that the policy names; apiServer is what the control plane takes for it, nil in every other
	// round.
	prometheus, apiServer *faults.Proxy

	// fields are the user's as he set them last, n is his replicas; floor is the fewest ready pods that may be
	// seen: the smallest n, less what was evicted and deleted.
	fields   userFields
	n, floor int
	gone     int
	updated  bool
	paused   bool
	// broken are the faults that have not been mended, oldest first.
	broken []fault
	moved  int
}

// fault is something to mend.
type fault struct {
	what string
	// part of Headgate that it is about, faults.ControlPlane or faults.Prometheus, or answersOfPrometheus; empty: another.
	part string
	mend func()
	// until is the move after which it is mended.
	until int
}

// answersOfPrometheus is the part of a fault that only this workload's policy notices.
const answersOfPrometheus = "answers of Prometheus"

const (
	leastMoves, mostMoves = 6, 14
	// leastPods and mostPods of the workload.
	leastPods, mostPods = 2, 5
)

func newWalk(c *harness.Case, seed uint64) *walk {
	w := &walk{Case: c, rand: rand.New(rand.NewPCG(seed, 0)), start: time.Now(), n: 3, floor: 3}
	w.kill = w.rand.IntN(2) == 0
	return w
}

// round walks, waits until everything is quiet, and looks.
func (w *walk) round() {
	if w.rand.IntN(2) == 0 {
		w.apiServer = faults.NewAPIServer(w.Case)
	}
	var url string
	w.prometheus, url = faults.NewPrometheus(w.Case)
	w.Policy(pick(w.rand, []string{
		quick,
		quick + "onFailure: Revert",
		quick + "onFailure: Quarantine\nonInconclusive: RollBack",
		"steps: [{weight: 20, minDuration: 30s}, {weight: 50, minDuration: 30s}]\nmaxDuration: 2m\nprogressDeadline: 60s",
	}) + fmt.Sprintf("\nanalysis: {prometheus: {url: %q}}", url))
	// The native rolling update takes no pod before its successor is ready.
	w.Deploy("replicas=3", "strategy.type=RollingUpdate", "strategy.rollingUpdate.maxSurge=1", "strategy.rollingUpdate.maxUnavailable=0")
	w.AwaitStable()
	w.fields = fieldsOf(w.AwaitComplete())
	kinds := harness.AllKinds()
	if w.kill {
		kinds = shortKinds()
	}
	w.loads = w.StartLoads(
		harness.NamedConfig{Name: "service", Config: harness.ToService(kinds)},
		harness.NamedConfig{Name: "pods", Config: harness.ToPods(kinds)},
	)
	w.Pods.Mark(harness.AnyRevision)
	for range leastMoves + w.rand.IntN(mostMoves-leastMoves) {
		w.move()
		w.pass(time.Duration(1+w.rand.IntN(20)) * time.Second)
		w.mend(func(f fault) bool { return f.until <= w.moved })
	}
	w.mend(func(fault) bool { return true })
	w.requireRest()
	w.requireSidecars()
	w.requireUndo()
	w.AwaitQuiet()
	for _, l := range w.loads {
		requireOwnFailures(w.T, l.Stop(), w.killed)
	}
}

// move makes one, and prints it.
func (w *walk) move() {
	type named struct {
		what string
		do   func(what string)
	}
	moves := []named{
		{"set image v2", w.update(setImage("v2")...)}, {"set image v3", w.update(setImage("v3")...)},
		{"set image errors", w.update(setImage("errors")...)}, {"set image crash", w.update(setImage("crash")...)},
		{"set image never-ready", w.update(setImage("never-ready")...)},
		{"restart", w.update("rollout", "restart", "deployment/"+harness.Name)},
		{"undo", w.undo},
		{"annotate", w.kubectl("annotate", "--overwrite", "deployment", harness.Name, fmt.Sprintf("move=%d", w.moved))},
		{"pause or resume", w.pauseOrResume}, {"scale", w.scale}, {"scale", w.scale}, {"another maxSurge", w.surge},
		{"promote", w.promote}, {"promote", w.promote},
		{"delete a pod", w.deletePod}, {"evict a pod", w.evictPod},
		{"disconnect a sidecar", w.disconnect}, {"disconnect a sidecar", w.disconnect},
		{"kill the leader", w.killLeader}, {"freeze the leader", w.freezeLeader},
		{"another certificate", w.anotherCertificate},
		{"restart the API server", w.restart("kube-apiserver")},
		{"restart the kubelet", w.restart("kubelet")}, // pods get new tokens
		{"no control plane", w.away(faults.ControlPlane)}, {"no Prometheus", w.away(faults.Prometheus)},
		{"a Prometheus that can't be trusted", w.unreliablePrometheus},
	}
	if w.kill {
		moves = append(moves, named{"kill an Envoy", w.killEnvoy}, named{"kill an Envoy", w.killEnvoy})
	}
	if w.apiServer != nil {
		moves = append(moves, named{"an API server that can't be trusted", w.unreliableAPIServer}, named{"an API server that can't be trusted", w.unreliableAPIServer})
	}
	m := pick(w.rand, moves)
	w.moved++
	m.do(m.what)
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func (w *walk) say(format string, args ...any) {
	w.T.Helper()
	w.T.Logf("%4.0fs %s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...))
}

// pass lets time go by: how long is part of the history.
func (w *walk) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.Ctx.Done():
	}
}

// try runs kubectl. It may be refused while something is broken, or paused; otherwise it must succeed.
func (w *walk) try(what string, args ...string) bool {
	w.T.Helper()
	r := w.Try(args...)
	switch {
	case r.Exit == 0:
		w.say("%s", what)
	case len(w.broken) > 0 || w.paused:
		w.say("%s: refused: %s", what, strings.TrimSpace(r.Stderr))
	default:
		w.T.Errorf("%s: %s", what, r)
	}
	return r.Exit == 0
}

func (w *walk) kubectl(args ...string) func(string) {
	return func(what string) { w.try(what, args...) }
}

// update changes the template.
func (w *walk) update(args ...string) func(string) {
	return func(what string) { w.updated = w.try(what, args...) || w.updated }
}

// undo needs an update before it: of one that was taken back while it was held nothing is left to undo.
func (w *walk) undo(what string) {
	if w.updated {
		w.updated = !w.try(what, "rollout", "undo", "deployment/"+harness.Name)
	}
}

func (w *walk) pauseOrResume(string) {
	verb := "pause"
	if w.paused {
		verb = "resume"
	}
	if w.try(verb, "rollout", verb, "deployment/"+harness.Name) {
		w.paused = !w.paused
	}
}

func (w *walk) scale(string) {
	n := leastPods + w.rand.IntN(mostPods-leastPods+1)
	if w.try(fmt.Sprintf("scale to %d", n), "scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", n)) {
		w.n, w.floor = n, min(n, w.floor)
	}
}

// surge writes a percentage, which no hold does: who writes what a field is already says nothing, and keeps what he wrote before.
func (w *walk) surge(string) {
	surge := intstr.FromString(pick(w.rand, []string{"25%", "50%"}))
	patch := fmt.Sprintf(`{"spec":{"strategy":{"rollingUpdate":{"maxSurge":%q}}}}`, surge.String())
	if w.try("maxSurge "+surge.String(), "patch", "deployment", harness.Name, "-p", patch) {
		strategy := *w.fields.Strategy.RollingUpdate
		strategy.MaxSurge = &surge
		w.fields.Strategy.RollingUpdate = &strategy
	}
}

// status is the Rollout's as it is.
func (w *walk) status() v1alpha1.RolloutStatus {
	return w.AwaitRollout(time.Minute, "there is a Rollout", func(*v1alpha1.Rollout) bool { return true }).Status
}

func (w *walk) promote(what string) {
	if revision := w.status().Candidate.Hash; revision != "" {
		w.try(what+" "+revision, "patch", "rollouts.headgate.dev", harness.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"promote":{"revision":%q}}}`, revision))
	}
}

// revision is one of those that have pods; empty when there are none.
func (w *walk) revision() string {
	s := w.status()
	all := slices.DeleteFunc([]string{s.Stable.Hash, s.Candidate.Hash}, func(hash string) bool { return hash == "" || len(w.Pods.Of(hash)) == 0 })
	if len(all) == 0 {
		return ""
	}
	return pick(w.rand, all)
}

func (w *walk) deletePod(what string) {
	if pods := w.Pods.Of(w.revision()); len(pods) > 0 {
		w.gone++
		w.try(what+" "+pods[0].Name, "delete", "pod", pods[0].Name, "--wait=false")
	}
}

func (w *walk) evictPod(what string) {
	if pods := w.Pods.Of(w.revision()); len(pods) > 0 {
		w.gone++
		faults.Evict(w.Case, pods[0])
		w.say("%s: %s", what, pods[0].Name)
	}
}

func (w *walk) disconnect(string) {
	pods := slices.DeleteFunc(w.Pods.Of(w.revision()), func(p *corev1.Pod) bool { return !harness.ReadyButGated(p) })
	if len(pods) > 0 {
		how := pick(w.rand, []faults.Network{faults.Cut, faults.HalfOpen, faults.Slow})
		mend := faults.Disconnect(w.Case, pods[0], how)
		w.breaks(fault{what: fmt.Sprintf("the sidecar of %s is %s", pods[0].Name, how), mend: mend})
	}
}

func (w *walk) killEnvoy(what string) {
	pods := slices.DeleteFunc(w.Pods.Of(w.status().Candidate.Hash), func(p *corev1.Pod) bool { return !harness.ReadyButGated(p) || harness.Ready(p) })
	if len(pods) > 0 {
		faults.Kill(w.Case, faults.Envoy(pods[0]))
		w.killed++
		w.say("%s: %s", what, pods[0].Name)
	}
}

// suffers says whether something about a part is broken.
func (w *walk) suffers(part string) bool {
	return slices.ContainsFunc(w.broken, func(f fault) bool { return f.part == part })
}

// leader is the process that leads, when all is well with the control plane; nil when it is not.
func (w *walk) leader() *faults.Process {
	if w.suffers(faults.ControlPlane) {
		return nil
	}
	faults.AwaitReady(w.Case, faults.ControlPlane)
	_, pod := faults.Leader(w.Case, "")
	p := faults.Replica(pod)
	return &p
}

func (w *walk) killLeader(what string) {
	if leader := w.leader(); leader != nil {
		faults.Kill(w.Case, *leader)
		w.say("%s: %s", what, leader.Pod.Name)
	}
}

func (w *walk) freezeLeader(string) {
	if leader := w.leader(); leader != nil {
		mend := faults.Freeze(w.Case, *leader)
		w.breaks(fault{what: "the leader is frozen: " + leader.Pod.Name, part: faults.ControlPlane, mend: mend})
	}
}

func (w *walk) anotherCertificate(what string) {
	if !w.suffers(faults.ControlPlane) { // it is the leader who makes one
		faults.RotateCertificate(w.Case)
		w.say("%s", what)
	}
}

// restart kills a component of the cluster, where that is possible.
func (w *walk) restart(component string) func(string) {
	return func(what string) {
		if component == "kubelet" {
			w.awaitKnown()
		}
		r, local := w.RestartComponents(w.Ctx, component)
		if r.Exit != 0 {
			w.T.Fatal(r)
		}
		if local {
			w.say("%s", what)
		}
	}
}

// awaitKnown waits until a kubelet that starts finds all pods that serve older than ten seconds. It takes younger ones for
// new, and for not ready until it has asked, on clusters without Headgate too.
func (w *walk) awaitKnown() {
	var pods corev1.PodList
	if err := w.Client.List(w.Ctx, &pods, client.InNamespace(w.Namespace)); err != nil {
		w.T.Fatalf("listing pods: %v", err)
	}
	var youngest time.Time
	for i := range pods.Items {
		for _, s := range pods.Items[i].Status.ContainerStatuses {
			if r := s.State.Running; s.Ready && r != nil && r.StartedAt.After(youngest) {
				youngest = r.StartedAt.Time
			}
		}
	}
	select {
	case <-time.After(time.Until(youngest.Add(12 * time.Second))): // its time has whole seconds
	case <-w.Ctx.Done():
	}
}

func (w *walk) away(part string) func(string) {
	return func(what string) {
		if !w.suffers(part) {
			w.breaks(fault{what: what, part: part, mend: faults.Away(w.Case, part)})
		}
	}
}

func (w *walk) unreliablePrometheus(string) {
	if w.suffers(answersOfPrometheus) {
		return
	}
	how := pick(w.rand, []struct {
		what   string
		faults proxyfault.Faults
	}{
		{"Prometheus answers nonsense", proxyfault.Faults{NaN: true}},
		{"Prometheus is slow", proxyfault.Faults{Latency: metav1.Duration{Duration: 5 * time.Second}}},
		{"Prometheus refuses connections", proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}}},
	})
	w.prometheus.Set(how.faults)
	w.breaks(fault{what: how.what, part: answersOfPrometheus, mend: func() { w.prometheus.Set(proxyfault.Faults{}) }})
}

// unreliableAPIServer refuses writes of the control plane, or everything. It is not slow: pods would start without
// sidecars, and then updates go out natively.
func (w *walk) unreliableAPIServer(string) {
	if w.suffers(faults.ControlPlane) {
		return
	}
	how := pick(w.rand, []struct {
		what   string
		faults proxyfault.Faults
	}{
		{"the API server refuses every third write", proxyfault.Faults{Every: 3, Statuses: refusals}},
		{"the API server refuses connections of the control plane", proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}}},
	})
	w.apiServer.Set(how.faults)
	w.breaks(fault{what: how.what, part: faults.ControlPlane, mend: func() {
		w.apiServer.Set(proxyfault.Faults{})
		faults.AwaitReady(w.Case, faults.ControlPlane)
	}})
}

// breaks notes a fault that lasts for one to three moves.
func (w *walk) breaks(f fault) {
	w.say("%s", f.what)
	f.until = w.moved + 1 + w.rand.IntN(3)
	w.broken = append(w.broken, f)
}

// mend mends the faults that are due.
func (w *walk) mend(due func(fault) bool) {
	var left []fault
	for _, f := range w.broken {
		if !due(f) {
			left = append(left, f)
			continue
		}
		f.mend()
		w.say("mended: %s", f.what)
	}
	w.broken = left
}

// requireRest waits until nothing goes on any more, and checks that everything is as the user wants it.
func (w *walk) requireRest() {
	faults.AwaitReady(w.Case, faults.ControlPlane)
	if w.paused {
		w.pauseOrResume("")
	}
	w.AwaitDeployment(rolloutEnd, "the Deployment is complete or has failed", func(d *appsv1.Deployment) bool {
		return failed(d) || harness.Complete(d) && d.Annotations[v1alpha1.HoldAnnotation] == ""
	})
	r := w.AwaitRollout(rolloutEnd, "the Rollout is at rest", func(r *v1alpha1.Rollout) bool {
		return idle(r) || r.Status.Phase == v1alpha1.PhaseQuarantined
	})
	w.say("at rest: %s, stable %s", r.Status.Phase, r.Status.Stable.Hash)
	w.AwaitReady(2*time.Minute, r.Status.Stable.Hash, w.n)
	if idle(r) {
		requireFields(w.T, w.fields, w.AwaitComplete())
	} else {
		w.requireUndone(r.Status.Stable.Hash)
	}
	if least := w.Pods.Least(harness.AnyRevision); least < w.floor-w.gone {
		w.T.Errorf("only %d pods were ready at some moment, want %d: the fewest replicas, less %d pods that went", least, w.floor-w.gone, w.gone)
	}
}

// idle: nothing goes on.
func idle(r *v1alpha1.Rollout) bool {
	return r.Status.Phase == v1alpha1.PhaseIdle && r.Status.Stable.Hash != ""
}

// requireSidecars makes an update that brings sidecars, where pods came while nobody injected them: it goes out at once,
// and says so.
func (w *walk) requireSidecars() {
	stable := w.status().Stable.Hash
	bare := func(p *corev1.Pod) bool { return p.Labels[v1alpha1.InjectedLabel] != "true" }
	if !slices.ContainsFunc(w.Pods.Of(stable), bare) {
		return
	}
	if r := w.Do("set", "env", "deployment/"+harness.Name, "WALK=sidecars"); !strings.Contains(r.Stderr, "this update brings the sidecar") {
		w.T.Errorf("pods of stable have no sidecar, and no warning says that the update goes out at once: %s", r)
	}
	r := w.AwaitRollout(2*time.Minute, "another version is stable", func(r *v1alpha1.Rollout) bool {
		return idle(r) && r.Status.Stable.Hash != stable
	})
	w.AwaitReady(time.Minute, r.Status.Stable.Hash, w.n)
	w.say("stable %s has sidecars", r.Status.Stable.Hash)
}

// requireUndo makes an update that nobody has seen before, and takes it back.
func (w *walk) requireUndo() {
	stable := w.status().Stable.Hash
	w.Pods.Mark(stable)
	w.Do("set", "env", "deployment/"+harness.Name, "WALK=end")
	w.AwaitRollout(2*time.Minute, "there is a candidate", func(r *v1alpha1.Rollout) bool { return r.Status.Candidate.Hash != "" })
	w.requireUndone(stable)
	if least := w.Pods.Least(stable); least < w.n {
		w.T.Errorf("only %d stable pods were ready at some moment of the last update, want %d", least, w.n)
	}
}

// requireUndone takes an update back, whatever became of it.
func (w *walk) requireUndone(stable string) {
	w.Do("rollout", "undo", "deployment/"+harness.Name)
	w.AwaitDeployment(2*time.Minute, "the Deployment is complete and not held", func(d *appsv1.Deployment) bool {
		return harness.Complete(d) && d.Annotations[v1alpha1.HoldAnnotation] == ""
	})
	r := w.AwaitRollout(2*time.Minute, "the Rollout is Idle", idle)
	if r.Status.Stable.Hash != stable {
		w.T.Errorf("undo made %s stable, want %s", r.Status.Stable.Hash, stable)
	}
	requireFields(w.T, w.fields, w.AwaitComplete())
	w.AwaitReady(time.Minute, stable, w.n)
	w.say("undo reached stable")
}

// requireOwnFailures checks that only the version that fails requests has failed any, and at most one was cut for each Envoy
// that was killed.
func requireOwnFailures(t testing.TB, r load.Report, killed int64) {
	t.Helper()
	own := r.Classes["status-500"] + r.Classes["grpc-Internal"] // as it answers; what was cut or late is not its own
	cut := min(r.Versions[""].Failed, r.Classes["status-503"]+r.Classes["grpc-Unavailable"], killed)
	if r.Failed != own+cut || r.Versions["errors"].Failed != own || r.Sent == 0 || !r.Final {
		t.Errorf("%d of %d requests failed, %d of them as a version does that fails some, and %d Envoys were killed: %v %v\n%s",
			r.Failed, r.Sent, own, killed, r.Classes, r.Versions, strings.Join(r.Samples, "\n"))
	}
	t.Logf("%d requests, %d failed, versions %v", r.Sent, r.Failed, r.Versions)
}
